"""A module built for this machine and loaded, to see what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.library import compile_program, machine_program
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.targets import HOST, CompileTarget, find_target
from shuffledeploy.model.scratch import scratch_folder


@contextmanager
def host_machine(module: tvm.IRModule, target: CompileTarget) -> Iterator[relax.VirtualMachine]:
    """Build a module and load it for the length of a block.

    Linking and loading takes a tenth of the second that TVM's just-in-time linker does.

    Parameters
    ----------
    module : tvm.IRModule
        Relax functions of calls, and the kernels that they call.
    target : CompileTarget
        This machine.

    Raises
    ------
    Failure
        If TVM cannot compile it.
    """
    with loaded_program(machine_program(module, target), target) as machine:
        yield machine


@contextmanager
def loaded_program(program: tvm.IRModule, target: CompileTarget) -> Iterator[relax.VirtualMachine]:
    """Compile what `machine_program` made and load it for the length of a block, in any thread."""
    with scratch_folder("host-machine-") as folder:
        library = folder / "network.so"
        compile_program(program, target, library)
        yield relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())


@contextmanager
def default_machine(lowered: tvm.IRModule, target: CompileTarget) -> Iterator[relax.VirtualMachine]:
    """Run a lowered network here for the length of a block, with a target's default schedules.

    Parameters
    ----------
    lowered : tvm.IRModule
        Calls of unscheduled kernels.
    target : CompileTarget
        Whose schedules kernels get; the code is this machine's.

    Yields
    ------
    tvm.relax.VirtualMachine
        What :func:`host_machine` gives, with the same errors.
    """
    functions = {name: scheduled(f, target.core) for name, f in kernel_functions(lowered).items()}
    module = run_steps(lowered, steps_of(pipeline(target, {}, functions), Phase.SCHEDULE))
    with host_machine(module, find_target(HOST)) as machine:
        yield machine
