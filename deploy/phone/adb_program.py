"""The adb program: the user's own where there is one, else Debian's, fetched without root."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.board import apt_tree
from shuffledeploy.deploy.board.places import built_once, recipe_hash
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

_SDK_VARIABLES = ("ANDROID_HOME", "ANDROID_SDK_ROOT")
_PACKAGED = Path("usr/lib/android-sdk/platform-tools/adb")
# Starts the packaged program with the libraries that lie beside it; its log goes there, too.
_START = "adb"
_SCRIPT = """\
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export ANDROID_ADB_LOG_PATH="${{ANDROID_ADB_LOG_PATH:-$here/server.log}}"
LD_LIBRARY_PATH="{libraries}" exec "{program}" "$@"
"""


@dataclass(frozen=True)
class AdbProgram:
    """An adb that can be started.

    Attributes
    ----------
    executable : Path
        The program.
    is_users : bool
        Whether the user installed it.
    """

    executable: Path
    is_users: bool


def find_adb() -> AdbProgram:
    """Return the user's adb, or fetch Debian's on first use (about 5 s, 6 MB).

    Raises
    ------
    Failure
        When there is none and none can be fetched.
    """
    if found := shutil.which("adb"):
        return AdbProgram(Path(found), True)
    for variable in _SDK_VARIABLES:
        if folder := os.environ.get(variable):
            installed = Path(folder) / "platform-tools/adb"
            if os.access(installed, os.X_OK):
                return AdbProgram(installed, True)
    return _fetched_adb()


def _fetched_adb() -> AdbProgram:
    if not shutil.which("apt-get"):
        raise Failure(
            "there is no adb on the PATH or in $ANDROID_HOME/platform-tools, and no apt to fetch"
            " it: install Android's platform tools"
        )
    recipe = recipe_hash(Path(apt_tree.__file__), Path(__file__), platform.machine())
    folder = built_once(f"adb-{recipe}", _fetch)
    return AdbProgram(folder / _START, False)


def _fetch(folder: Path) -> None:
    """Unpack Debian's adb and the libraries that it brings along."""
    with scratch_folder("shuffledeploy-apt-") as scratch:
        tree = apt_tree.open_tree(scratch, apt_tree.host_architecture())
        apt_tree.unpack(tree, ["adb"], folder)
        apt_tree.unpack(tree, apt_tree.dependencies(tree, "adb"), folder)
    shutil.rmtree(folder / "usr/share", ignore_errors=True)
    if not (folder / _PACKAGED).is_file():
        raise Failure(f"the package adb of this release has no {_PACKAGED}")
    libraries = apt_tree.library_path(folder / "usr").replace(str(folder), "$here")
    start = folder / _START
    start.write_text(_SCRIPT.format(libraries=libraries, program=f"$here/{_PACKAGED}"))
    start.chmod(0o755)
