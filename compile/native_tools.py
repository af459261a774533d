"""clang, lld and ar of the ziglang package, for every target: nothing needs to be installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.errors import Failure


def zig() -> Path:
    """Return the zig executable itself: ``python -m ziglang`` would start a Python each time.

    Raises
    ------
    Failure
        Where the package is missing.
    """
    found = importlib.util.find_spec("ziglang")
    if found is None or found.origin is None:
        raise Failure("the package ziglang is missing; install it with: pip install ziglang")
    return Path(found.origin).parent / "zig"


def zig_version() -> str:
    """Name the version of the package that brings the compilers."""
    return importlib.metadata.version("ziglang")


def linker() -> list[str]:
    """Find a linker for ELF files of any architecture.

    Raises
    ------
    Failure
        Where neither the `ziglang` package nor an lld is installed.
    """
    if importlib.util.find_spec("ziglang") is not None:
        return [str(zig()), "ld.lld"]
    for name in ("ld.lld", "lld"):
        if (found := shutil.which(name)) is not None:
            return [found] if name == "ld.lld" else [found, "-flavor", "gnu"]
    raise Failure("no linker was found: install one with `pip install ziglang`")


def compile_c(
    source: Path, output: Path, flags: Sequence[str], others: Sequence[Path] = ()
) -> None:
    """Compile a C file with clang, warnings being errors.

    Parameters
    ----------
    source, output : Path
        The C file and what to write.
    flags : Sequence[str]
        What to make of it (``-c``, ``-shared``, ``-target``...).
    others : Sequence[Path]
        C files and objects that belong to the same program.

    Raises
    ------
    Failure
        With the compiler's first error.
    """
    command = [str(zig()), "cc", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=all", *flags,
               str(source), *map(str, others), "-o", str(output)]  # fmt: skip
    # A C library for a target is built once, which takes it 20 s.
    cache = str(cache_folder() / "zig")
    own = {"ZIG_LOCAL_CACHE_DIR": cache, "ZIG_GLOBAL_CACHE_DIR": cache}
    run_tool(command, f"compile {source.name}", own)


def run_tool(
    command: Sequence[str], purpose: str, environment: Mapping[str, str] | None = None
) -> None:
    """Run a compiler, a linker or an archiver.

    Raises
    ------
    Failure
        With its first complaint; `purpose` says in the infinitive what could not be done.
    """
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        complaint = next((line for line in lines if "error:" in line), lines[0])
        raise Failure(f"cannot {purpose}: {complaint}")
