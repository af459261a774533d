"""The emulated board's Python, for other engines: an arm64 system with TVM's runtime and NumPy."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.compiler.cores import CORES, DEFAULT_CORE, ArmCore
from shuffledeploy.deploy.board import apt_tree, wheels
from shuffledeploy.deploy.board.guests import find_core
from shuffledeploy.deploy.board.places import built_once, recipe_hash, step
from shuffledeploy.deploy.board.qemu import Emulator, ensure_emulator
from shuffledeploy.deploy.board.sysroot import guest_command, shown_of_cores, write_core
from shuffledeploy.deploy.board.wheels import unpack_wheels
from shuffledeploy.model.cache_folder import cache_folder
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
class BoardPython:
    """The board's Python.

    Attributes
    ----------
    folder : Path
        The build. ``cores/NAME`` in it is the root of a board with that core: the common system,
        and what shows the core.
    version : str
        As ``3.11``.
    """

    folder: Path
    version: str

    def root(self, core: ArmCore) -> Path:
        """Return the root of a board with this core."""
        return self.folder / "cores" / core.name

    @property
    def site(self) -> Path:
        """Return the board's Python packages."""
        return self.folder / "site"


def ensure_python() -> BoardPython:
    """Return the board's Python, building it on first use (about 30 s, 120 MB).

    Raises
    ------
    Failure
        When a package cannot be fetched, or this machine has no apt or pip.
    """
    folder = built_once(_name(), _build)
    return BoardPython(folder, (folder / "python-version.txt").read_text())


def is_python_built() -> bool:
    """Whether :func:`ensure_python` has nothing to fetch."""
    return (cache_folder() / _name()).is_dir()


def _name() -> str:
    """Name the build after what it depends on."""
    modules = map(Path, (apt_tree.__file__, wheels.__file__, __file__))
    return f"board-python-{recipe_hash(*modules, *shown_of_cores(), *_wheels())}"


def _wheels() -> list[str]:
    """Return the board's Python packages: TVM's pair as installed here."""
    pair = ("apache-tvm", "apache-tvm-ffi")
    try:
        pinned = [f"{name}=={importlib.metadata.version(name)}" for name in pair]
    except importlib.metadata.PackageNotFoundError as error:
        raise Failure(f"{error.name} is not installed; the board takes the same version") from error
    return [*pinned, "numpy>=2,<3"]


def _build(folder: Path) -> None:
    """Fill the folder."""
    system = folder / "system"
    with scratch_folder("shuffledeploy-apt-") as scratch:
        tree = apt_tree.open_tree(scratch, "arm64")
        version = apt_tree.python_version(tree)
        packages = [*_PACKAGES, *(name.format(version) for name in _PYTHON_PACKAGES)]
        apt_tree.unpack(tree, packages, system)
    for unused in ("usr/share", "etc", "var"):
        shutil.rmtree(system / unused, ignore_errors=True)
    (folder / "python-version.txt").write_text(version)
    unpack_wheels(
        _wheels(), version, folder / "site", what="TVM's runtime and numpy", left_out=_LEFT_OUT
    )
    for core in CORES.values():
        root = folder / "cores" / core.name
        root.mkdir(parents=True)
        for entry in system.iterdir():
            (root / entry.name).symlink_to(Path("../..") / system.name / entry.name)
        write_core(root, core)
    _compile_modules(BoardPython(folder, version))


def _compile_modules(python: BoardPython) -> None:
    """Import once what the worker imports: with bytecode in place, a start takes half the time."""
    emulator, core = ensure_emulator(), find_core(DEFAULT_CORE)
    command = python_command(emulator, python, core, ["-c", "import numpy, json, ctypes"])
    with step("compile the board's Python modules"):
        done = subprocess.run(
            command, check=False, capture_output=True, text=True,
            env={**emulator.environment(), "PYTHONDONTWRITEBYTECODE": ""},
        )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise Failure(f"the board's Python cannot import NumPy: {last}")


def python_command(
    emulator: Emulator, python: BoardPython, core: ArmCore, arguments: Sequence[str], *,
    counts: Path | None = None, temporary: Path | None = None, packages: Sequence[Path] = (),
) -> list[str]:  # fmt: skip
    """Return the command that starts the board's Python on an emulated core.

    Parameters
    ----------
    emulator, python, core
        The emulator, the board's Python, the core.
    arguments : sequence of str
        Of Python.
    counts : Path, optional
        Where the counting plugin writes; without it nothing is counted.
    temporary : Path, optional
        The board's folder of temporary files.
    packages : sequence of Path
        More folders of Python packages.
    """
    root = python.root(core)
    settings = {
        "TVM_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONHOME": "/usr",
        "PYTHONPATH": ":".join(map(str, (python.site, *packages))),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "LC_ALL": "C.UTF-8",
        **({"TMPDIR": str(temporary)} if temporary else {}),
    }
    program = [str(root / f"usr/bin/python{python.version}"), *arguments]
    return guest_command(emulator, core, program, root=root, counts=counts, settings=settings)
