"""From scheduled kernels to a shared library: memory plan, code, link."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import tvm

from shuffledeploy.compiler.code_in_parts import in_parts
from shuffledeploy.compiler.ir.constants import CONSTANTS, constants_object
from shuffledeploy.compiler.ir.tvm_edges import (
    argument_checks,
    default_lowering,
    pack_imports,
    register_lowering,
)
from shuffledeploy.compiler.kept_objects import forget_old_objects, kept_object
from shuffledeploy.compiler.native_tools import linker, run_tool
from shuffledeploy.compiler.pipeline import Dump, Phase, Step, pipeline, run_steps, steps_of
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.printable import printable_line
from shuffledeploy.model.scratch import scratch_folder

# Android 15 and newer load only libraries whose segments are aligned to 16 KiB pages.
PAGE_SIZE = 16384
# Name under which TVM finds the steps of `Phase.CODE`.
_TIR_PIPELINE = "shuffledeploy"


def build_library(
    module: tvm.IRModule, target: CompileTarget, path: Path, dump: Dump = Dump()
) -> None:
    """Build a module of scheduled kernels into a shared library for the Relax virtual machine.

    Parameters
    ----------
    module : tvm.IRModule
        Entry function ``main`` that calls TIR kernels.
    target : CompileTarget
        What to build for; no compiler or linker for it needs to be installed.
    path : Path
        The library to write, ending in ``.so``.
    dump : Dump
        Where the module is shown after each step.

    Raises
    ------
    Failure
        If TVM cannot compile it, or linking fails; its own words are in the message.
    """
    compile_program(machine_program(module, target, dump), target, path, dump)


def machine_program(
    module: tvm.IRModule, target: CompileTarget, dump: Dump = Dump()
) -> tvm.IRModule:
    """Run all steps of a library but those on code: what `compile_program` takes.

    They build Relax functions, of which TVM lets one thread of a process build one at a time.
    """
    steps = steps_of(pipeline(target), Phase.KERNEL, Phase.PLAN, Phase.MACHINE)
    with target.tvm_target, tvm.transform.PassContext(opt_level=3):
        return run_steps(module, steps, dump)


def compile_program(
    module: tvm.IRModule,
    target: CompileTarget,
    path: Path,
    dump: Dump = Dump(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Compile what `machine_program` made, and link it.

    Several threads may do so at once. Kernels that were compiled for an earlier program are not
    compiled again (:mod:`compiler.kept_objects`), unless the program is shown after each step.

    Parameters
    ----------
    module : tvm.IRModule
        The program.
    target : CompileTarget
        What to compile for.
    path : Path
        The library to write.
    dump : Dump
        Where the module is shown after each step.
    progress : Callable
        Told how many objects of kernels are done, and of how many.

    Raises
    ------
    Failure
        If TVM cannot compile it, or linking fails; its own words are in the message.
    """
    steps = pipeline(target)
    program, kernels = in_parts(module) if dump.folder is None else (module, [])
    # The objects are as large as the library, and nobody needs them once it is linked.
    with scratch_folder(f".{path.stem}.", path.parent) as objects:
        with _objects_of(kernels, target, objects, progress) as added:
            context = tvm.transform.PassContext(opt_level=3)
            with target.tvm_target, context, _code_steps(steps, dump):
                constants = constants_object(program, target.architecture, objects)
                compiled = _compiled(program.without_attr(CONSTANTS), target)
        compiled.export_library(
            str(path), fcompile=link, fpack_imports=pack_imports, workspace_dir=str(objects),
            addons=[*added, *constants],
        )  # fmt: skip


@contextmanager
def _objects_of(
    parts: Sequence[tvm.IRModule],
    target: CompileTarget,
    folder: Path,
    progress: Callable[[int, int], None],
) -> Iterator[list[str]]:
    """Compile kernels beside a block, an object for each part; they are there at its end."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as beside:
        paths = [folder / f"kernels_{place}.o" for place in range(len(parts))]
        done = [
            beside.submit(kept_object, part, target, path, partial(_write_object, part, target))
            for part, path in zip(parts, paths, strict=True)
        ]
        progress(0, len(done))
        try:
            yield [str(path) for path in paths]
            made = False
            for count, one in enumerate(as_completed(done), 1):
                made = one.result() or made
                progress(count, len(done))
        finally:
            for one in done:
                one.cancel()
    if made:
        forget_old_objects()


def _write_object(kernels: tvm.IRModule, target: CompileTarget, path: Path) -> None:
    """Compile kernels into an object of a library."""
    with target.tvm_target, tvm.transform.PassContext(opt_level=3), _plainly_failing(target):
        compiled_kernels(kernels, target).mod.write_to_file(str(path), "o")


def _compiled(module: tvm.IRModule, target: CompileTarget) -> Any:
    with _plainly_failing(target):
        return tvm.compile(
            module, target.tvm_target, relax_pipeline=None, tir_pipeline=_TIR_PIPELINE
        )


@contextmanager
def _plainly_failing(target: CompileTarget) -> Iterator[None]:
    """Say in one line what TVM cannot compile within a block."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = printable_line(lines[-1])
        raise Failure(f"TVM cannot compile this network for {target.name}: {reason}") from error


def build_object(
    module: tvm.IRModule, target: CompileTarget, path: Path, *, checks: bool = True
) -> None:
    """Build one scheduled kernel into an object file, as it would be in a library.

    Parameters
    ----------
    module : tvm.IRModule
        The kernel alone.
    target : CompileTarget
        What to build for.
    path : Path
        The object to write.
    checks : bool
        Whether the kernel checks its arguments. That is a third of the work of building it.
    """
    module = run_steps(module, steps_of(pipeline(target), Phase.KERNEL))
    with tvm.transform.PassContext(config=argument_checks(checks)):
        compiled_kernels(module, target).mod.write_to_file(str(path), "o")


def compiled_kernels(module: tvm.IRModule, target: CompileTarget, dump: Dump = Dump()) -> Any:
    """Compile a module of finished kernels into machine code in memory."""
    with _code_steps(pipeline(target), dump):
        return tvm.compile(module, target.tvm_target, tir_pipeline=_TIR_PIPELINE)


# TVM asks for the steps between two of its own by a name: what stands for them there.
_steps_of_code: contextvars.ContextVar[tuple[Sequence[Step], Dump]] = contextvars.ContextVar("code")


@contextmanager
def _code_steps(steps: Sequence[Step], dump: Dump = Dump()) -> Iterator[None]:
    """Let TVM lower kernels by the steps of `Phase.CODE` within a block."""
    token = _steps_of_code.set((steps_of(steps, Phase.CODE), dump))
    try:
        yield
    finally:
        _steps_of_code.reset(token)


def _tir_pipeline() -> tuple[Any, Any, Any]:
    """Give the passes before, and for host and device, as TVM asks for them."""
    _, finish_host, finish_device = default_lowering()
    steps, dump = _steps_of_code.get()

    @tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def run(module: tvm.IRModule, _: Any) -> tvm.IRModule:
        return run_steps(module, steps, dump)

    return run, finish_host, finish_device


register_lowering(_TIR_PIPELINE, _tir_pipeline)


def link(output: str, objects: Sequence[str], options: Sequence[str] | None = None) -> None:
    """Link objects into a shared library; undefined symbols are the TVM runtime's and libc's.

    What TVM tells debuggers of its functions, a tenth of ShuffleNet 0.5x's library, is left out.

    Raises
    ------
    Failure
        With the linker's first complaint.
    """
    command = [*linker(), "-shared", "--gc-sections", "--strip-debug",
               "-z", f"max-page-size={PAGE_SIZE}",
               "-o", str(output), *map(str, objects), *(options or ())]  # fmt: skip
    run_tool(command, f"link {Path(output).name}")


# What `export_library` asks of a linker given as a function.
link.output_format = "so"  # type: ignore[attr-defined]
