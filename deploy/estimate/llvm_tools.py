"""llvm-mca and llvm-mc: found here, or fetched from Debian without root as QEMU is."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.board import apt_tree
from shuffledeploy.deploy.board.places import PACKAGE, built_once, recipe_hash
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

# Newer releases have better models of some cores: the first that apt knows is taken.
_RELEASES = ("19", "16", "15", "14")
GOOD_RELEASE = 19
_TOOLS = ("llvm-mca", "llvm-mc")


@dataclass(frozen=True)
class LlvmTools:
    """A pair of LLVM's tools of one version.

    Attributes
    ----------
    mca, mc : Path
        ``llvm-mca`` and ``llvm-mc``.
    libraries : str
        Value of ``LD_LIBRARY_PATH`` that they need, maybe empty.
    version : str
        As ``19.1.7``.
    """

    mca: Path
    mc: Path
    libraries: str
    version: str

    @property
    def release(self) -> int:
        """Major version."""
        return int(self.version.split(".")[0])

    def run(self, tool: Path, arguments: list[str], text: str) -> str:
        """Give a tool a text and return what it prints.

        Raises
        ------
        Failure
            With the tool's first complaint.
        """
        try:
            done = subprocess.run(
                [str(tool), *arguments], input=text, check=False, capture_output=True, text=True,
                env={**os.environ, "LD_LIBRARY_PATH": self.libraries}, timeout=120,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{tool.name} did not answer within 120 s") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error:" in line]
            raise Failure(f"{tool.name}: {lines[0] if lines else done.stderr.strip()[-200:]}")
        return done.stdout


def ensure_llvm_tools() -> LlvmTools:
    """Return LLVM's tools: good ones on PATH, else fetched once (130 MB), else any on PATH.

    Raises
    ------
    Failure
        When there are none and apt gives none.
    """
    here = _on_path()
    if here is not None and here.release >= GOOD_RELEASE:
        return here
    sources = (PACKAGE / "apt_tree.py", Path(__file__), platform.machine())
    try:
        folder = built_once(f"llvm-{recipe_hash(*sources)}", _fetch)
    except Failure as error:
        if here is not None:
            return here
        raise Failure(
            f"there is no llvm-mca, and it cannot be fetched ({error}): install the package llvm"
        ) from error
    found = _describe(folder / "usr" / "bin", apt_tree.library_path(folder / "usr"))
    if found is None:
        raise Failure(f"llvm-mca in {folder} does not run: remove that folder")
    return found


def _on_path() -> LlvmTools | None:
    suffixes = [*(f"-{number}" for number in range(24, GOOD_RELEASE - 1, -1)), ""]
    for suffix in suffixes:
        mca = shutil.which(f"llvm-mca{suffix}")
        if mca and (Path(mca).parent / f"llvm-mc{suffix}").exists():
            return _describe(Path(mca).parent, "", suffix)
    return None


def _describe(folder: Path, libraries: str, suffix: str = "") -> LlvmTools | None:
    mca, mc = (folder / f"{tool}{suffix}" for tool in _TOOLS)
    tools = LlvmTools(mca, mc, libraries, "")
    try:
        told = tools.run(mca, ["--version"], "")
    except (OSError, Failure):
        return None
    found = re.search(r"LLVM version (\d+\.\d+\.\d+)", told)
    return LlvmTools(mca, mc, libraries, found[1]) if found else None


def _fetch(folder: Path) -> None:
    """Unpack the newest release's tools and the libraries that this machine lacks."""
    with scratch_folder("shuffledeploy-apt-") as scratch:
        tree = apt_tree.open_tree(scratch, apt_tree.host_architecture())
        unpacked = scratch / "unpacked"
        release = _unpack_newest(tree, unpacked)
        programs = unpacked / "usr" / "lib" / f"llvm-{release}" / "bin"
        (folder / "usr" / "bin").mkdir(parents=True)
        for tool in _TOOLS:
            shutil.copy2(programs / tool, folder / "usr" / "bin" / tool)
        shutil.copytree(unpacked / "usr" / "lib", folder / "usr" / "lib", symlinks=True,
                        ignore=shutil.ignore_patterns(f"llvm-{release}", "python3*"))  # fmt: skip
        lacking = apt_tree.lacks_libraries(
            folder / "usr" / "bin" / _TOOLS[0], apt_tree.library_path(folder / "usr")
        )
        if lacking:
            apt_tree.unpack(tree, apt_tree.dependencies(tree, f"libllvm{release}"), folder)
            shutil.rmtree(folder / "usr" / "share", ignore_errors=True)


def _unpack_newest(tree: apt_tree.AptTree, target: Path) -> str:
    reason: Failure | None = None
    for release in _RELEASES:
        try:
            apt_tree.unpack(tree, [f"llvm-{release}", f"libllvm{release}"], target)
            return release
        except Failure as error:
            reason = reason or error
    raise reason or Failure("no release of LLVM is known")
