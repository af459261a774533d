"""What ships in a product: one object or library, one header, one example."""

from __future__ import annotations

from pathlib import Path

import tvm

from shuffledeploy.compiler.bundle.manifest_entries import ImageStatistics, Standalone, Tensor
from shuffledeploy.compiler.ir.attributes import CALLS, STRIPS, WORKSPACE, attribute, kernel_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.ir.memory_layout import ALIGNMENT
from shuffledeploy.compiler.passes.memory.one_function import COMPUTE
from shuffledeploy.compiler.pipeline import Dump, Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.standalone.c_interface import (
    CInterface,
    c_identifier,
    parameters,
    readable_in_c,
)
from shuffledeploy.compiler.standalone.example import EXAMPLE, example
from shuffledeploy.compiler.standalone.header import header
from shuffledeploy.compiler.standalone.objects import (
    write_apple_archive,
    write_archive,
    write_object,
    write_shared,
)
from shuffledeploy.compiler.targets import CompileTarget


def write_standalone(  # noqa: PLR0913 - all but three by name
    folder: Path,
    module: tvm.IRModule,
    target: CompileTarget,
    *,
    name: str,
    network: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    normalisation: ImageStatistics | None,
    apple: bool = False,
    dump: Dump = Dump(),
) -> Standalone:
    """Write a network that needs no runtime: object, static and shared library, header, example.

    Parameters
    ----------
    folder : Path
        Where to; it exists.
    module : tvm.IRModule
        What `compiler.network.link_kernels` made.
    target : CompileTarget
        What to compile for.
    name : str
        What its names in C are made of.
    network : str
        Name for people.
    inputs, outputs : tuple of Tensor
        In order.
    normalisation : ImageStatistics, optional
        Of the input's channels.
    apple : bool
        Whether there is a static library for Apple's systems, too.
    dump : Dump
        Where the module is shown after each step.

    Raises
    ------
    UsageError
        If the network calls what only TVM's runtime has, no name can be made of `name`, or the
        target is none that Apple's systems run on.
    """
    if apple:
        target.require_apple()
    steps = steps_of(pipeline(target), Phase.KERNEL, Phase.PLAN, Phase.FUNCTION)
    with target.tvm_target, tvm.transform.PassContext(opt_level=3):
        built = run_steps(module, steps, dump)
        compute = built[COMPUTE]
        # C has no arrays of nothing: a network that needs no workspace takes one line.
        workspace = max(int(attribute(compute, WORKSPACE)), ALIGNMENT)
        given = parameters(inputs)
        interface = CInterface(
            c_identifier(name), readable_in_c(network), target.name, target.architecture,
            target.features, given, parameters(outputs, given), workspace, kernels_called(built),
            normalisation, target.threads,
        )  # fmt: skip
        made = Standalone(interface.name, interface.workspace, interface.calls)
        write_object(built, interface, target, folder / made.object, dump)
        if apple:
            write_apple_archive(built, interface, target, folder / made.apple_archive)
    write_archive([folder / made.object], folder / made.archive)
    write_shared(folder / made.object, interface, folder / made.library)
    (folder / made.header).write_text(header(interface), encoding="ascii")
    (folder / EXAMPLE).write_text(example(interface), encoding="ascii")
    return made


def kernels_called(module: tvm.IRModule) -> tuple[str, ...]:
    """List the kernels that one inference calls; strips go by their function's name."""
    functions = kernel_functions(module)
    called = map(str, attribute(module[COMPUTE], CALLS))
    return tuple(
        name if attribute(functions[name], STRIPS) else kernel_of(functions[name], name)
        for name in called
    )
