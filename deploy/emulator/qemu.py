"""First stage of the emulated board: QEMU, the counting plugin, the kernel runner."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploy.emulator import apt_tree
from deploy.emulator.places import PACKAGE, built_once, recipe_hash, step
from deploy.emulator.toolchain import compile_c, link_static, write_layout
from model.errors import Failure

_BINARY = "qemu-aarch64"
_PLUGIN_FLAGS = (
    "-shared", "-fPIC", "-fvisibility=hidden", "-nostdlib", "-Wl,--allow-shlib-undefined",
    "-Wl,-z,lazy",
)  # fmt: skip
_RUNNER_FLAGS = (
    "-c", "-target", "aarch64-linux-musl", "-mcpu=generic", "-ffreestanding", "-fno-builtin",
    "-fno-stack-protector", "-fno-function-sections", "-fno-pic", "-fomit-frame-pointer",
    "-fno-asynchronous-unwind-tables",
)  # fmt: skip


@dataclass(frozen=True)
class Emulator:
    """A user-mode QEMU that takes plugins, and what goes with it.

    Attributes
    ----------
    qemu : Path
        The ``qemu-aarch64`` executable.
    libraries : str
        Value of ``LD_LIBRARY_PATH`` that it needs, maybe empty.
    plugin : Path
        The counting plugin, compiled for this host.
    runner : Path
        The kernel runner, an AArch64 object.
    """

    qemu: Path
    libraries: str
    plugin: Path
    runner: Path

    def environment(self) -> dict[str, str]:
        """Return the environment in which QEMU starts."""
        return {**os.environ, "LD_LIBRARY_PATH": self.libraries}


def ensure_emulator() -> Emulator:
    """Return the emulator, building it on first use (seconds, about 50 MB).

    Raises
    ------
    Failure
        When this machine has neither apt nor a QEMU that takes plugins.
    """
    recipe = recipe_hash(
        PACKAGE / "counter.c", PACKAGE / "runner.c", PACKAGE / "toolchain.py", Path(__file__),
        platform.machine(),
    )  # fmt: skip
    folder = built_once(f"emulator-{recipe}", _build)
    return _emulator_in(folder)


def _emulator_in(folder: Path) -> Emulator:
    """Describe a built folder."""
    packaged = folder / "packages" / "usr"
    qemu = packaged / "bin" / _BINARY
    if not qemu.exists():
        qemu = Path((folder / "qemu-on-path.txt").read_text())
    found = sorted({path.parent for path in packaged.glob("lib/**/*.so.*")})
    return Emulator(qemu, ":".join(map(str, found)), folder / "counter.so", folder / "runner.o")


def _build(folder: Path) -> None:
    """Fill the emulator's folder."""
    if shutil.which("apt-get"):
        _fetch_qemu(folder)
    else:
        _take_qemu_on_path(folder)
    with step("compile the counting plugin and the kernel runner"):
        # No C library is linked in: QEMU has brought the host's when it loads the plugin.
        compile_c(PACKAGE / "counter.c", folder / "counter.so", _PLUGIN_FLAGS)
        compile_c(PACKAGE / "runner.c", folder / "runner.o", _RUNNER_FLAGS)
        write_layout(folder)
    shutil.rmtree(folder / ".zig", ignore_errors=True)
    _check_plugin(_emulator_in(folder))


def _fetch_qemu(folder: Path) -> None:
    """Unpack Debian's dynamic qemu-user and the libraries that this host lacks."""
    packages = folder / "packages"
    with tempfile.TemporaryDirectory(prefix="shuffledeploy-apt-") as scratch:
        tree = apt_tree.open_tree(Path(scratch), apt_tree.host_architecture())
        apt_tree.unpack(tree, ["qemu-user"], packages)
        binary = packages / "usr/bin" / _BINARY
        if not binary.exists():
            raise Failure(f"the package qemu-user of this release has no {_BINARY}")
        for other in binary.parent.iterdir():
            if other != binary:
                other.unlink()
        linked = subprocess.run(["ldd", str(binary)], check=False, capture_output=True, text=True)
        if "not found" in linked.stdout:
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
    with tempfile.TemporaryDirectory() as scratch:
        program, counts = Path(scratch) / "program", Path(scratch) / "counts"
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
        written = list(Path(scratch).glob("counts.*"))
    if complaint or done.returncode or not written:
        reason = complaint or (done.stderr.strip().splitlines() or ["no counts written"])[-1]
        raise Failure(
            f"{emulator.qemu.name} does not run the counting plugin ({reason}); Debian 12's"
            " dynamic qemu-user 7.2 does"
        )
