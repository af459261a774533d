"""Compiles the C of this package for the machine that measures."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from shuffledeploy.compiler.native_tools import compile_c
from shuffledeploy.deploy.benchmark.processor import cpu_model
from shuffledeploy.model.command_output import replaced
from shuffledeploy.model.folders import BUILD

# clang would halve vectors of 64 bytes on the cores where it takes them for slow.
_WIDE = ("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()

FOLDER = BUILD / "bench"


def compiled(name: str, folder: Path = FOLDER, cpu: str = "") -> str:
    """Give the library of one of this package's C files, compiled first where it is absent.

    Parameters
    ----------
    name : str
        The file's, without its ending.
    folder : Path
        Where libraries go.
    cpu : str
        LLVM's name of the core as libraries find it, where the code is to use all of it: a compiler
        finds more, where part of the core is hidden from libraries.

    Raises
    ------
    Failure
        The compiler's first error.
    """
    source = Path(__file__).parent / f"{name}.c"
    core = (f"-mcpu={cpu.replace('-', '_')}",) if cpu else ()
    flags = ("-shared", "-fPIC", *core, *_WIDE)
    made_of = source.read_bytes() + repr((flags, cpu_model())).encode()
    library = folder / f"{name}-{hashlib.sha256(made_of).hexdigest()[:12]}.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(library) as beside:
            compile_c(source, beside, flags)
    return str(library)
