"""From scheduled kernels to a shared library: memory plan, code, link."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from compile.constants_in_place import constants_in_place, constants_object
from compile.kernels.finishing import finish_kernels
from compile.kernels.lowering import PIPELINE
from compile.targets import CompileTarget
from model.errors import Failure

# Android 15 and newer load only libraries whose segments are aligned to 16 KiB pages.
PAGE_SIZE = 16384


def build_library(module: tvm.IRModule, target: CompileTarget, path: Path) -> None:
    """Build a module of scheduled kernels into a shared library for the Relax virtual machine.

    Parameters
    ----------
    module : tvm.IRModule
        Entry function ``main`` that calls TIR kernels.
    target : CompileTarget
        What to build for; no compiler or linker for it needs to be installed.
    path : Path
        The library to write, ending in ``.so``.

    Raises
    ------
    Failure
        If linking fails; the linker's own words are in the message.
    """
    # The objects are as large as the library, and nobody needs them once it is linked.
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as objects:
        in_place, constants = constants_in_place(_finished(module, target))
        _compiled(in_place, target).export_library(
            str(path), fcompile=link, workspace_dir=objects,
            addons=constants_object(constants, target, Path(objects)),
        )  # fmt: skip


def build_executable(module: tvm.IRModule, target: CompileTarget) -> Any:
    """Compile a module of scheduled kernels for the Relax virtual machine."""
    return _compiled(_finished(module, target), target)


def _finished(module: tvm.IRModule, target: CompileTarget) -> tvm.IRModule:
    return finish_kernels(module, fetches=target.fetches)


def _compiled(module: tvm.IRModule, target: CompileTarget) -> Any:
    with target.tvm_target, tvm.transform.PassContext(opt_level=3):
        return tvm.compile(
            module, target.tvm_target, relax_pipeline=memory_passes(), tir_pipeline=PIPELINE
        )


def memory_passes() -> tvm.transform.Pass:
    """List the passes that turn dataflow into calls on planned memory (no fusion: that is done)."""
    transform = relax.transform
    return tvm.transform.Sequential([
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        transform.AttachGlobalSymbol(),
    ])  # fmt: skip


def linker() -> list[str]:
    """Find a linker for ELF libraries of any architecture.

    Raises
    ------
    Failure
        Where neither the `ziglang` package nor an lld is installed.
    """
    try:
        import ziglang

        zig = Path(ziglang.__file__).parent / "zig"
        if zig.is_file():
            return [str(zig), "ld.lld"]
    except ImportError:
        pass
    for name in ("ld.lld", "lld"):
        if (found := shutil.which(name)) is not None:
            return [found] if name == "ld.lld" else [found, "-flavor", "gnu"]
    raise Failure("no linker was found: install one with `pip install ziglang`")


def link(output: str, objects: Sequence[str], options: Sequence[str] | None = None) -> None:
    """Link objects into a shared library; undefined symbols are the TVM runtime's and libc's.

    Raises
    ------
    Failure
        With the linker's first complaint.
    """
    command = [*linker(), "-shared", "--gc-sections", "-z", f"max-page-size={PAGE_SIZE}",
               "-o", str(output), *map(str, objects), *(options or ())]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        complaint = (result.stderr.strip().splitlines() or ["no message"])[0]
        raise Failure(f"linking {Path(output).name} failed: {complaint}")


# What `export_library` asks of a linker given as a function.
link.output_format = "so"  # type: ignore[attr-defined]
