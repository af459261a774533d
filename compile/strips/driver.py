"""The function that calls a group's kernels in the order of its plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import PrimType

from shuffledeploy.compiler.ir.memory_layout import FLOAT_BYTES
from shuffledeploy.compiler.ir.tir import moved
from shuffledeploy.compiler.ir.tvm_edges import NO_ALIAS
from shuffledeploy.compiler.strips.ranged import RANGE_TYPE
from shuffledeploy.compiler.strips.strip_plan import Layer, Move, PlannedRun, StripPlan


@dataclasses.dataclass(frozen=True)
class Inside:
    """An argument that is another layer's output."""

    layer: int


@dataclasses.dataclass(frozen=True)
class Outside:
    """An argument that the group is given."""

    position: int


@dataclasses.dataclass(frozen=True)
class Callee:
    """A ranged kernel, and what it is called with, outputs included."""

    reference: Any
    arguments: tuple[Inside | Outside, ...]


def strip_driver(
    plan: StripPlan,
    layers: Sequence[Layer],
    callees: Mapping[int, Callee],
    inputs: Sequence[Any],
    outputs: Sequence[tuple[int, tuple[int, ...]]],
) -> tirx.PrimFunc:
    """Write the driver of a group.

    Parameters
    ----------
    plan : StripPlan
        What to compute in which order, and where rows stand.
    layers : sequence of Layer
        The group.
    callees : mapping
        What computes each layer that is not given.
    inputs : sequence of buffers
        What it takes from outside, first the layers that are given.
    outputs : sequence
        Layers that have a whole tensor of their own, each with its shape.

    Returns
    -------
    tirx.PrimFunc
        Parameters: `inputs`, `outputs`, and the workspace where there is one.
    """
    new = {layer: tirx.decl_buffer(shape, "float32", f"out_{layer}") for layer, shape in outputs}
    whole = new | {place: inputs[place] for place, layer in enumerate(layers) if layer.given}
    parameters = [*inputs, *new.values()]
    rows = tirx.decl_buffer((plan.workspace // FLOAT_BYTES,), "float32", "rows")
    if plan.workspace:
        parameters.append(rows)

    def rows_from(layer: int, row: int) -> Any:
        """Point where a row of a layer's window is, if that stood at the workspace's beginning."""
        place = plan.places[layer]
        if place in whole:
            return whole[place].data
        return moved(rows.data, plan.windows[place].start + row * layers[place].row_bytes)

    def move(step: Move) -> list[Any]:
        """Copy as many rows at once as do not overlap with where they go."""
        copies = []
        for row in range(0, step.rows, step.by):
            rows = min(step.by, step.rows - row)
            size = tirx.IntImm("uint64", rows * layers[step.layer].row_bytes)
            to, now = rows_from(step.layer, row), rows_from(step.layer, row + step.by)
            copies.append(tirx.call_extern("handle", "memcpy", to, now, size))
        return copies

    def run(step: PlannedRun) -> Any:
        callee = callees[step.run.layer]
        pointers = [
            inputs[argument.position].data
            if isinstance(argument, Outside)
            else rows_from(argument.layer, -step.tops[argument.layer])
            for argument in callee.arguments
        ]
        return _call(callee.reference, pointers, step.run.first, step.run.last)

    calls = [
        call
        for step in plan.steps
        for call in (move(step) if isinstance(step, Move) else [run(step)])
    ]
    return _function(parameters, tirx.SeqStmt([tirx.Evaluate(call) for call in calls]))


def whole_range(function: tirx.PrimFunc, reference: Any, units: int) -> tirx.PrimFunc:
    """Write a kernel as a call of its ranged form on all of its pixels."""
    buffers = [
        tirx.decl_buffer([int(extent) for extent in p.shape], str(p.dtype), str(p.name))
        for p in function.params
    ]
    pointers = [buffer.data for buffer in buffers]
    return _function(buffers, tirx.Evaluate(_call(reference, pointers, 0, units)))


def _call(reference: Any, pointers: Sequence[Any], first: int, last: int) -> Any:
    """Call a ranged kernel."""
    bounds = [tirx.IntImm(RANGE_TYPE, bound) for bound in (first, last)]
    return tvm.ir.Call(reference, [*pointers, *bounds], ret_ty=PrimType("int32"))


def _function(parameters: Sequence[Any], body: Any) -> tirx.PrimFunc:
    return tirx.PrimFunc(parameters, body).with_attr({NO_ALIAS: True, "s_tir": True})
