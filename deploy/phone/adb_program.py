"""The adb program: the user's own where there is one, else Debian's, fetched without root."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.board import apt_tree
from shuffledeploy.deploy.board.places import built_once, recipe_hash
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

_SDK_VARIABLES = ("ANDROID_HOME", "ANDROID_SDK_ROOT")
_PACKAGED = Path("usr/lib/android-sdk/platform-tools/adb")


@dataclass(frozen=True)
class AdbProgram:
    """An adb that can be started.

    Attributes
    ----------
    executable : Path
        The program.
    libraries : str
        Value of ``LD_LIBRARY_PATH`` that it needs; empty for the user's own.
    """

    executable: Path
    libraries: str = ""

    @property
    def is_users(self) -> bool:
        """Whether the user installed it."""
        return not self.libraries

    def environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        """Return the environment in which it starts."""
        libraries = {"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}
        return {**os.environ, **libraries, **changes}


def find_adb() -> AdbProgram:
    """Return the user's adb, or fetch Debian's on first use (about 5 s, 6 MB).

    Raises
    ------
    Failure
        When there is none and none can be fetched.
    """
    if found := shutil.which("adb"):
        return AdbProgram(Path(found))
    for variable in _SDK_VARIABLES:
        if folder := os.environ.get(variable):
            installed = Path(folder) / "platform-tools/adb"
            if os.access(installed, os.X_OK):
                return AdbProgram(installed)
    return _fetched_adb()


def _fetched_adb() -> AdbProgram:
    if not shutil.which("apt-get"):
        raise Failure(
            "there is no adb on the PATH or in $ANDROID_HOME/platform-tools, and no apt to fetch"
            " it: install Android's platform tools"
        )
    recipe = recipe_hash(Path(apt_tree.__file__), Path(__file__), platform.machine())
    folder = built_once(f"adb-{recipe}", _fetch)
    return AdbProgram(folder / _PACKAGED, apt_tree.library_path(folder / "usr"))


def _fetch(folder: Path) -> None:
    """Unpack Debian's adb and the libraries that it brings along."""
    with scratch_folder("shuffledeploy-apt-") as scratch:
        tree = apt_tree.open_tree(scratch, apt_tree.host_architecture())
        apt_tree.unpack(tree, ["adb"], folder)
        apt_tree.unpack(tree, apt_tree.dependencies(tree, "adb"), folder)
    shutil.rmtree(folder / "usr/share", ignore_errors=True)
    if not (folder / _PACKAGED).is_file():
        raise Failure(f"the package adb of this release has no {_PACKAGED}")
