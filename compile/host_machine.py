"""A module built for this machine and loaded, to see what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tvm
from tvm import relax

from shuffledeploy.compiler.library import compile_program, machine_program
from shuffledeploy.compiler.targets import CompileTarget
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
