"""Where a network begins to differ from PyTorch: the operator, or the pass of the pipeline.

A bundle is only written of a network whose kernels, unscheduled and on this machine, answer as
PyTorch does. Where they do not, each step that made them is tried on the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from torch.export import ExportedProgram

from shuffledeploy.compiler.bundle.tolerances import TOLERANCES, allowed_error, error_unit
from shuffledeploy.compiler.frontend.importing import imported, tensor_calls
from shuffledeploy.compiler.frontend.program import Program, tidied
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF, INT8
from shuffledeploy.compiler.passes.graph.fuse_rest import fuse_rest
from shuffledeploy.compiler.passes.graph.own_answers import own_answers
from shuffledeploy.compiler.pipeline import Phase, Step, pipeline, run_steps, steps_of
from shuffledeploy.compiler.program_values import tensors_of_calls
from shuffledeploy.compiler.proof_arrays import unscheduled_writes, written_answers
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.model.errors import Failure, UsageError

# What is beyond so many tolerances of parity is no rounding: unscheduled kernels add one number
# after the other, and round more than the library that parity judges. Some networks lose more in
# int8 than parity allows; a layer that is computed wrongly loses far more.
WRONG = {FLOAT: 10.0, HALF: 2.0, INT8: 5.0}


def agree(actual: Sequence[Array], expected: Sequence[Array], precision: str = FLOAT) -> bool:
    """Whether answers are PyTorch's but for rounding, of networks that compute in a precision."""
    pairs = zip(actual, expected, strict=False)
    return len(actual) == len(expected) and all(_agrees(a, e, precision) for a, e in pairs)


def fault_of(
    program: Program, target: CompileTarget, inputs: list[Array], expected: list[Array]
) -> UsageError | Failure | None:
    """Name what makes a network answer otherwise than PyTorch.

    Parameters
    ----------
    program : Program
        The network as it was imported.
    target : CompileTarget
        What it is compiled for.
    inputs, expected : list of Array
        An input on which it differs, and PyTorch's answer.

    Returns
    -------
    UsageError, Failure or None
        An operator of the program is imported as something else, or a pass changes what the network
        computes; the message names it. ``None`` where unscheduled kernels answer as PyTorch does.
    """
    steps = steps_of(pipeline(target), Phase.GRAPH)

    def right_after(count: int) -> bool:
        found = _answers(run_steps(program.module, steps[:count]), inputs)
        return agree(found, expected, target.precision)

    if right_after(len(steps)):
        return None
    if not right_after(0):
        return UsageError(_wrong_operator(program.core, inputs))
    name = first_wrong(steps, right_after).name
    return Failure(
        f"the pass {name} changes what this network computes: its answer is PyTorch's before the"
        " pass and another after it; this is a fault of the compiler"
    )


def first_wrong(steps: Sequence[Step], right_after: Callable[[int], bool]) -> Step:
    """Bisect for the step after which answers are wrong.

    Parameters
    ----------
    steps : sequence of Step
        In order; answers are right before the first and wrong after the last.
    right_after : Callable
        Whether answers are right after so many of them.
    """
    right, wrong = 0, len(steps)
    while wrong - right > 1:
        middle = (right + wrong) // 2
        right, wrong = (middle, wrong) if right_after(middle) else (right, middle)
    return steps[wrong - 1]


def _answers(module: tvm.IRModule, inputs: list[Array]) -> list[Array]:
    """Run a module after any graph pass; what is left of operators goes TVM's own way."""
    lowered = own_answers(fuse_rest(module))
    return written_answers(lowered, unscheduled_writes(lowered, inputs))


def _wrong_operator(program: ExportedProgram, inputs: list[Array]) -> str:
    """Say from which operator of a program on its tensors are others than in PyTorch."""
    told = tensors_of_calls(program, inputs, np.copy)
    actual = _answers(tidied(imported(program, with_all=True)), inputs)
    for node, ours, theirs in zip(tensor_calls(program), actual, told, strict=True):
        if not _agrees(ours, theirs):
            return (
                f"the program cannot be compiled: from its {node.target} ({node.name}) on it"
                f" computes otherwise than PyTorch ({_difference(ours, theirs)})"
            )
    return "the program cannot be compiled: its answer is another than PyTorch's"


def _difference(actual: Array, expected: Array) -> str:
    if actual.shape != expected.shape:
        return f"shape {actual.shape} in place of {expected.shape}"
    with np.errstate(invalid="ignore"):
        error = np.max(np.abs(actual.astype(np.float64) - expected.astype(np.float64)))
    return f"largest error {error:.1e} of values up to {np.max(np.abs(expected)):.1e}"


def _agrees(actual: Array, expected: Array, precision: str = FLOAT) -> bool:
    if actual.shape != expected.shape:
        return False
    if not expected.size:
        return True
    numbers = expected.astype(np.float64)
    tolerance = WRONG[precision] * TOLERANCES[precision]
    allowed = allowed_error(error_unit(expected, precision), tolerance, precision)
    with np.errstate(invalid="ignore"):
        near = np.abs(actual.astype(np.float64) - numbers) <= allowed
    same = (actual == expected) | (np.isnan(actual.astype(np.float64)) & np.isnan(numbers))
    return bool((near | same).all())
