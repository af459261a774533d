"""What one stands for in each tensor that is held in int8, from inputs like those to come.

The float32 network runs on this machine, and its tensors are watched. A tensor's scale is the one
with which rounding to 127 steps on either side of zero, or to 255 where nothing is negative, loses
the least energy of what was seen: values beyond are cut off.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.host_machine import default_machine
from shuffledeploy.compiler.ir.attributes import INT8_MEANS, INT8_SCALES, INT8_ZEROS
from shuffledeploy.compiler.ir.graph import Array, rewrite
from shuffledeploy.compiler.ir.memory_layout import Held
from shuffledeploy.compiler.kernels.int8_weights import MOST
from shuffledeploy.compiler.passes.graph.compute_in_int8 import held_alike, int8_tensors
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.model.errors import UsageError

#: Elements of a tensor that are kept of each input.
KEPT = 4096
#: Limits that are tried, in parts of the largest magnitude that was seen.
TRIED = np.linspace(0.2, 1.0, 81)
# The pass of the pipeline that the scales are for.
_PASS = "compute_in_int8"


@dataclasses.dataclass(frozen=True)
class Watched:
    """What was seen of one tensor.

    Attributes
    ----------
    elements : Array
        Some of each input, float32.
    largest, smallest : float
        Of all: the largest magnitude, the least number.
    means : Array
        Of each channel.
    """

    elements: Array
    largest: float
    smallest: float
    means: Array


def with_int8_ranges(
    module: tvm.IRModule, target: CompileTarget, inputs: Sequence[list[Array]]
) -> tvm.IRModule:
    """Watch a network on inputs; give it the scales of the tensors that it will hold in int8.

    Parameters
    ----------
    module : tvm.IRModule
        As it was imported.
    target : CompileTarget
        What it is compiled for, in int8.
    inputs : sequence
        Of the network, one or more.

    Raises
    ------
    UsageError
        If a tensor is zero, or no number, on all inputs.
    """
    steps = steps_of(pipeline(target), Phase.GRAPH)
    place = next(number for number, step in enumerate(steps) if step.name == _PASS)
    before = run_steps(module, steps[:place])
    variables = int8_tensors(before)
    if not variables:
        raise UsageError("no layer of this network can be computed in int8: compile it in float32")
    shown = rewrite(before, lambda *_: None, lambda _: relax.Tuple(list(variables)))
    seen = _watched(run_steps(shown, steps[place + 1 :]), target, inputs)
    ways = held_alike(before, [best_way(tensor) for tensor in seen])
    means = np.concatenate([tensor.means for tensor in seen]).astype(np.float32)
    facts = {
        INT8_SCALES: [way.scale for way in ways],
        INT8_ZEROS: [way.zero for way in ways],
        INT8_MEANS: tvm.runtime.tensor(means),
    }
    return module.with_attrs(facts)


def held_in_int8(module: tvm.IRModule) -> list[Held]:
    """Tell how tensors are held, in their order, of a module that :func:`with_int8_ranges` gave."""
    attributes = module.attrs or {}
    facts = zip(attributes.get(INT8_SCALES, ()), attributes.get(INT8_ZEROS, ()), strict=True)
    return [Held(float(scale), int(zero)) for scale, zero in facts]


def best_way(seen: Watched) -> Held:
    """Choose how to hold a tensor, so that rounding and cutting off lose the least energy."""
    low, zero = (-MOST, 0) if seen.smallest < 0 else (0, -MOST - 1)
    high = MOST - zero
    losses = []
    for scale in TRIED * (seen.largest / high):
        held = np.clip(np.rint(seen.elements / scale), low, high) * scale
        losses.append(float(np.mean((held - seen.elements) ** 2)))
    return Held(float(TRIED[int(np.argmin(losses))] * seen.largest / high), zero)


def _watched(
    lowered: tvm.IRModule, target: CompileTarget, inputs: Sequence[list[Array]]
) -> list[Watched]:
    """Run kernels with default schedules on this machine; the answer has the tensors to watch."""
    with default_machine(lowered, target) as machine:
        parts = [_parts(machine["main"], values) for values in inputs]
    return [_joined([part[number] for part in parts]) for number in range(len(parts[0]))]


def _parts(network: Callable[..., object], values: list[Array]) -> list[Watched]:
    told = network(*(tvm.runtime.tensor(np.asarray(value, order="C")) for value in values))
    tensors = [tensor.numpy() for tensor in told]  # type: ignore[attr-defined]
    return [
        Watched(
            some_elements(values),
            float(np.abs(values).max()),
            float(values.min()),
            values.reshape(-1, values.shape[-1]).mean(axis=0),
        )
        for values in tensors
    ]


def some_elements(values: Array) -> Array:
    """Keep about `KEPT` elements of a tensor, of all channels alike.

    A step that shares a factor with the number of channels would meet the same few again and again.

    Parameters
    ----------
    values : Array
        Of any shape, channels last.

    Returns
    -------
    Array
        One axis.
    """
    step = max(1, values.size // KEPT)
    while math.gcd(step, values.shape[-1]) > 1:
        step += 1
    return values.reshape(-1)[::step].copy()


def _joined(parts: Sequence[Watched]) -> Watched:
    largest = float(np.max([part.largest for part in parts]))
    if not 0 < largest < np.inf:
        what = "are all zero" if largest == 0 else "are no numbers"
        raise UsageError(
            f"--calibrate: the numbers of a layer {what} on the inputs that were given: give"
            " pictures like those to come"
        )
    means = np.mean([part.means for part in parts], axis=0)
    smallest = min(part.smallest for part in parts)
    return Watched(np.concatenate([part.elements for part in parts]), largest, smallest, means)
