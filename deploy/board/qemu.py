"""First stage of the emulated board: QEMU, the counting plugin, the kernel runner."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.compiler import native_tools
from shuffledeploy.compiler.native_tools import compile_c
from shuffledeploy.deploy.board import apt_tree
from shuffledeploy.deploy.board.places import PACKAGE, built_once, recipe_hash, step
from shuffledeploy.deploy.board.toolchain import link_static, write_layout
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

# Guest architecture -> what clang calls its plainest core.
_GUESTS = {"aarch64": "generic", "x86_64": "x86_64"}
_BINARY = "qemu-aarch64"
_PLUGIN_FLAGS = (
    "-shared", "-fPIC", "-fvisibility=hidden", "-nostdlib", "-Wl,--allow-shlib-undefined",
    "-Wl,-z,lazy",
)  # fmt: skip
_RUNNER_FLAGS = (
    "-c", "-ffreestanding", "-fno-builtin", "-fno-stack-protector", "-fno-function-sections",
    "-fno-pic", "-fomit-frame-pointer",
    "-fno-asynchronous-unwind-tables",
)  # fmt: skip


@dataclass(frozen=True)
class Emulator:
    """A user-mode QEMU that takes plugins, and what goes with it.

    Attributes
    ----------
    qemu : Path
        The ``qemu-aarch64`` executable, or that of another guest.
    libraries : str
        Value of ``LD_LIBRARY_PATH`` that it needs, maybe empty.
    plugin : Path
        The counting plugin, compiled for this host.
    runner : Path
        The kernel runner, an object for the guest.
    """

    qemu: Path
    libraries: str
    plugin: Path
    runner: Path

    def environment(self) -> dict[str, str]:
        """Return the environment in which QEMU starts."""
        return {**os.environ, "LD_LIBRARY_PATH": self.libraries}


def ensure_emulator(architecture: str = "aarch64") -> Emulator:
    """Return the emulator of an architecture, building it on first use (seconds, about 60 MB).

    Raises
    ------
    Failure
        When this machine has neither apt nor a QEMU that takes plugins, or the architecture is
        neither aarch64 nor x86_64.
    """
    if architecture not in _GUESTS:
        raise Failure(f"{architecture} code cannot be emulated")
    recipe = recipe_hash(
        PACKAGE / "counter.c", PACKAGE / "runner.c", PACKAGE / "toolchain.py",
        Path(native_tools.__file__), Path(__file__), platform.machine(),
    )  # fmt: skip
    folder = built_once(f"emulator-{recipe}", _build)
    emulator = _emulator_in(folder, architecture)
    if not emulator.qemu.exists():
        raise Failure(f"there is no {emulator.qemu.name} beside {_BINARY}: install qemu-user")
    return emulator


def _emulator_in(folder: Path, architecture: str) -> Emulator:
    """Describe a built folder."""
    packaged = folder / "packages" / "usr"
    qemu = packaged / "bin" / _BINARY
    if not qemu.exists():
        qemu = Path((folder / "qemu-on-path.txt").read_text())
    return Emulator(
        qemu.with_name(f"qemu-{architecture}"), apt_tree.library_path(packaged),
        folder / "counter.so", folder / f"{architecture}-runner.o",
    )  # fmt: skip


def _build(folder: Path) -> None:
    """Fill the emulator's folder."""
    if shutil.which("apt-get"):
        _fetch_qemu(folder)
    else:
        _take_qemu_on_path(folder)
    with step("compile the counting plugin and the kernel runners"):
        # No C library is linked in: QEMU has brought the host's when it loads the plugin.
        compile_c(PACKAGE / "counter.c", folder / "counter.so", _PLUGIN_FLAGS)
        for guest, core in _GUESTS.items():
            flags = ("-target", f"{guest}-linux-musl", f"-mcpu={core}", *_RUNNER_FLAGS)
            compile_c(PACKAGE / "runner.c", folder / f"{guest}-runner.o", flags)
        write_layout(folder)
    _check_plugin(_emulator_in(folder, "aarch64"))


def _fetch_qemu(folder: Path) -> None:
    """Unpack Debian's dynamic qemu-user and the libraries that this host lacks."""
    packages = folder / "packages"
    with scratch_folder("shuffledeploy-apt-") as scratch:
        tree = apt_tree.open_tree(scratch, apt_tree.host_architecture())
        apt_tree.unpack(tree, ["qemu-user"], packages)
        binary = packages / "usr/bin" / _BINARY
        if not binary.exists():
            raise Failure(f"the package qemu-user of this release has no {_BINARY}")
        wanted = {f"qemu-{guest}" for guest in _GUESTS}
        for other in binary.parent.iterdir():
            if other.name not in wanted:
                other.unlink()
        if apt_tree.lacks_libraries(binary):
            apt_tree.unpack(tree, apt_tree.dependencies(tree, "qemu-user"), packages)
    shutil.rmtree(packages / "usr/share", ignore_errors=True)


def _take_qemu_on_path(folder: Path) -> None:
    """Fall back on a QEMU that the user installed."""
    found = shutil.which(_BINARY)
    if not found:
        raise Failure(
            f"cannot build the emulator: this machine has neither apt nor {_BINARY} on its PATH;"
            " use Debian 12 or a container of it, or install the package qemu-user"
        )
    (folder / "qemu-on-path.txt").write_text(found)


def _check_plugin(emulator: Emulator) -> None:
    """Refuse a QEMU that takes no plugins (a static build) before anything relies on it."""
    with scratch_folder("shuffledeploy-") as scratch:
        program, counts = scratch / "program", scratch / "counts"
        # A helper of the runner serves as the kernel: it returns 0, whatever it is given.
        complaint = link_static(emulator.runner, None, "TVMBackendParallelBarrier", program)
        command = [
            str(emulator.qemu),
            "-plugin",
            f"{emulator.plugin},out={counts}",
            str(program),
            "1",
        ]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=emulator.environment()
        )
        written = list(scratch.glob("counts.*"))
    if complaint or done.returncode or not written:
        reason = complaint or (done.stderr.strip().splitlines() or ["no counts written"])[-1]
        raise Failure(
            f"{emulator.qemu.name} does not run the counting plugin ({reason}); Debian 12's"
            " dynamic qemu-user 7.2 does"
        )
