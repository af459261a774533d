"""Second stage of the emulated board: an arm64 system with Python and TVM's runtime."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.compiler import cores
from shuffledeploy.compiler.cores import CORES, DEFAULT_CORE, ArmCore
from shuffledeploy.deploy.board import apt_tree
from shuffledeploy.deploy.board.guests import cpuinfo, find_core, main_id_register
from shuffledeploy.deploy.board.places import PACKAGE, built_once, recipe_hash, step
from shuffledeploy.deploy.board.qemu import Emulator, ensure_emulator
from shuffledeploy.deploy.board.wheels import unpack_wheels
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

_PACKAGES = (
    "libc6", "libstdc++6", "libgcc-s1", "zlib1g", "libexpat1", "libffi8", "libuuid1",
)  # fmt: skip
_PYTHON_PACKAGES = ("python{0}-minimal", "libpython{0}-minimal", "libpython{0}-stdlib")
# The board runs libraries and compiles nothing; the compiler alone is 240 MB.
_LEFT_OUT = re.compile(
    r"libtvm_compiler\.so|libtvm_runtime_cuda\.so|/include/|/3rdparty/|/src/|\.(h|hpp|cc|c|pyi)$"
    r"|/tests/|libstdc\+\+\.a|\.lib$"
)


@dataclass(frozen=True)
class Sysroot:
    """The board's files.

    Attributes
    ----------
    folder : Path
        The build. ``cores/NAME`` in it is the root of a board with that core: the common system,
        and the core's own ``/proc/cpuinfo`` and ``/sys/devices/system/cpu``.
    python : str
        The board's Python as ``3.11``.
    """

    folder: Path
    python: str

    def root(self, core: ArmCore) -> Path:
        """Return the root of a board with this core."""
        return self.folder / "cores" / core.name

    @property
    def site(self) -> Path:
        """Return the board's Python packages."""
        return self.folder / "site"


def ensure_sysroot() -> Sysroot:
    """Return the board's files, building them on first use (about 15 s, 120 MB).

    Raises
    ------
    Failure
        When a package cannot be fetched, or this machine has no apt or pip.
    """
    sources = (
        PACKAGE / "apt_tree.py",
        PACKAGE / "guests.py",
        Path(cores.__file__),
        PACKAGE / "wheels.py",
        Path(__file__),
    )
    folder = built_once(f"board-{recipe_hash(*sources, *_wheels())}", _build)
    return Sysroot(folder, (folder / "python-version.txt").read_text())


def _wheels() -> list[str]:
    """Return the device's Python packages: TVM's pair as installed here."""
    pair = ("apache-tvm", "apache-tvm-ffi")
    try:
        pinned = [f"{name}=={importlib.metadata.version(name)}" for name in pair]
    except importlib.metadata.PackageNotFoundError as error:
        raise Failure(f"{error.name} is not installed; the board takes the same version") from error
    return [*pinned, "numpy>=2,<3", "ml_dtypes", "typing_extensions", "psutil", "cloudpickle"]


def _build(folder: Path) -> None:
    """Fill the board's folder."""
    system = folder / "system"
    with scratch_folder("shuffledeploy-apt-") as scratch:
        tree = apt_tree.open_tree(scratch, "arm64")
        python = apt_tree.python_version(tree)
        packages = [*_PACKAGES, *(name.format(python) for name in _PYTHON_PACKAGES)]
        apt_tree.unpack(tree, packages, system)
    for unused in ("usr/share", "etc", "var"):
        shutil.rmtree(system / unused, ignore_errors=True)
    (folder / "python-version.txt").write_text(python)
    unpack_wheels(
        _wheels(), python, folder / "site", what="TVM's runtime and numpy", left_out=_LEFT_OUT
    )
    for core in CORES.values():
        _write_core(folder / "cores" / core.name, system, core)
    _compile_modules(Sysroot(folder, python))


def _compile_modules(sysroot: Sysroot) -> None:
    """Import once what the server imports: with bytecode in place, a start takes 5 s, not 12."""
    emulator, core = ensure_emulator(), find_core(DEFAULT_CORE)
    with step("compile the board's Python modules"):
        done = subprocess.run(
            [*guest_python(emulator, sysroot, core), "-c", "import tvm.rpc.server, argparse"],
            check=False, capture_output=True, text=True,
            env={**emulator.environment(), "PYTHONDONTWRITEBYTECODE": ""},
        )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise Failure(f"the board's Python cannot import TVM: {last}")


def guest_python(
    emulator: Emulator, sysroot: Sysroot, core: ArmCore, *, counts: Path | None = None,
    temporary: Path | None = None, packages: Sequence[Path] = (),
) -> list[str]:  # fmt: skip
    """Return the command that starts the board's Python on an emulated core.

    Parameters
    ----------
    emulator, sysroot, core
        The emulator, the board's files, the core.
    counts : Path, optional
        Where the counting plugin writes; without it nothing is counted.
    temporary : Path, optional
        The board's folder of temporary files.
    packages : sequence of Path
        More folders of Python packages.

    Returns
    -------
    list[str]
        A command line, to be continued with Python's arguments.
    """
    root = sysroot.root(core)
    settings = {
        "TVM_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONHOME": "/usr",
        "PYTHONPATH": ":".join(map(str, (sysroot.site, *packages))),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "LC_ALL": "C.UTF-8",
        **({"TMPDIR": str(temporary)} if temporary else {}),
    }
    return [
        str(emulator.qemu), *(["-plugin", f"{emulator.plugin},out={counts}"] if counts else []),
        "-cpu", core.qemu, "-L", str(root), "-U", "LD_LIBRARY_PATH",
        *(part for item in settings.items() for part in ("-E", "=".join(item))),
        str(root / f"usr/bin/python{sysroot.python}"),
    ]  # fmt: skip


def _write_core(root: Path, system: Path, core: ArmCore) -> None:
    """Make a root that shares the system's files and shows one core."""
    root.mkdir(parents=True)
    for entry in system.iterdir():
        (root / entry.name).symlink_to(Path("../..") / system.name / entry.name)
    cpus = root / "sys/devices/system/cpu"
    files = {
        root / "proc/cpuinfo": cpuinfo(core),
        **{cpus / name: "0\n" for name in ("present", "possible", "online")},
        cpus / "kernel_max": "0\n",
        cpus / "cpu0/online": "1\n",
        cpus / "cpu0/topology/core_id": "0\n",
        cpus / "cpu0/topology/physical_package_id": "0\n",
        cpus / "cpu0/topology/core_siblings_list": "0\n",
        cpus / "cpu0/topology/thread_siblings_list": "0\n",
        cpus / "cpu0/cpufreq/cpuinfo_max_freq": "1500000\n",
        cpus / "cpu0/cpufreq/scaling_cur_freq": "1500000\n",
        cpus / "cpu0/regs/identification/midr_el1": f"{main_id_register(core):#018x}\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
