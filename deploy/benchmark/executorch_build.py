"""Compiles `executorch_runner.cpp` against ExecuTorch's package, for this machine or a board."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from shuffledeploy.compiler.native_tools import compile_c, zig_version
from shuffledeploy.deploy.board.places import built_once, recipe_hash, step
from shuffledeploy.model.errors import Failure

_SOURCE = Path(__file__).with_name("executorch_runner.cpp")
_LIBRARIES = ("libexecutorch.so", "libexecutorch_threadpool.so")
# The first two are those of the package's own CMake file.
_FLAGS = (
    "-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED", "-std=c++17", "-lc++",
    "-fno-exceptions", "-fno-rtti", "-shared", "-fPIC",
)  # fmt: skip
# Of the C library: that of manylinux_2_28, for which the package is built.
_SYSTEM = "linux-gnu.2.28"


def installed_package() -> Path:
    """Return the folder of this machine's own package.

    Raises
    ------
    Failure
        It is not installed.
    """
    found = importlib.util.find_spec("executorch")
    if found is None or not found.submodule_search_locations:
        raise Failure("executorch is not installed: run `make bench`")
    return Path(next(iter(found.submodule_search_locations)))


def compiled_runner(package: Path, version: str, architecture: str) -> Path:
    """Return the library of the C functions, compiled on first use (a minute).

    Parameters
    ----------
    package : Path
        The folder ``executorch`` of the package, of that architecture.
    version : str
        The package's.
    architecture : str
        ``x86_64`` or ``aarch64``.

    Raises
    ------
    Failure
        The compiler's first error.
    """
    headers = package / "include"
    core = headers / "executorch" / "runtime" / "core" / "portable_type" / "c10"
    target = f"{architecture}-{_SYSTEM}"
    flags = [*_FLAGS, "-target", target, "-isystem", str(headers), "-isystem", str(core)]

    def build(folder: Path) -> None:
        with step(f"compile what calls ExecuTorch, {architecture}"):
            libraries = [package / "lib" / name for name in _LIBRARIES]
            compile_c(_SOURCE, folder / "runner.so", flags, libraries)

    recipe = recipe_hash(_SOURCE, version, target, zig_version(), *_FLAGS)
    return built_once(f"executorch-runner-{recipe}", build) / "runner.so"
