"""The function that calls a group's kernels in the order of its plan, for each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import PrimType

from shuffledeploy.compiler.ir.memory_layout import FLOAT_BYTES
from shuffledeploy.compiler.ir.tir import moved, tensor_bytes
from shuffledeploy.compiler.ir.tvm_edges import NO_ALIAS
from shuffledeploy.compiler.kernels.images import images_of, tensors_of_images
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
class Images:
    """What a driver does for each image of a batch.

    Attributes
    ----------
    number : int
        How many there are.
    inputs : set of int
        Which of the driver's inputs have another part for each; all outputs have.
    """

    number: int = 1
    inputs: Set[int] = frozenset()

    @property
    def variable(self) -> tirx.Var:
        """Make the variable that counts them."""
        return tirx.Var("image", "int32")

    def part(self, buffer: Any, image: tirx.Var) -> Any:
        """Point to an image's part of a tensor that has one for each."""
        if self.number == 1:
            return buffer.data
        size = tensor_bytes(buffer.shape, buffer.dtype) // self.number
        offset = tirx.Cast("int64", image) * tirx.IntImm("int64", size)
        return moved(buffer.data, offset, str(buffer.dtype))

    def repeated(self, body: Any, image: tirx.Var) -> Any:
        """Do something for each image."""
        if self.number == 1:
            return body
        return tirx.For(image, 0, self.number, tirx.ForKind.SERIAL, body)


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
    images: Images = Images(),
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
    images : Images
        For which all is done, one after another.

    Returns
    -------
    tirx.PrimFunc
        Parameters: `inputs`, `outputs`, and the workspace where there is one.
    """
    new = {
        layer: tirx.decl_buffer(shape, layers[layer].dtype, f"out_{layer}")
        for layer, shape in outputs
    }
    whole = new | {place: inputs[place] for place, layer in enumerate(layers) if layer.given}
    parameters = [*inputs, *new.values()]
    image = images.variable
    rows = tirx.decl_buffer((plan.workspace // FLOAT_BYTES,), "float32", "rows")
    if plan.workspace:
        parameters.append(rows)

    def rows_from(layer: int, row: int) -> Any:
        """Point where a row of a layer's window is, if that stood at the workspace's beginning."""
        place = plan.places[layer]
        if place in whole:
            return images.part(whole[place], image)
        at = plan.windows[place].start + row * layers[place].row_bytes
        return moved(rows.data, at, layers[place].dtype)

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
            rows_from(argument.layer, -step.tops[argument.layer])
            if isinstance(argument, Inside)
            else images.part(inputs[argument.position], image)
            if argument.position in images.inputs
            else inputs[argument.position].data
            for argument in callee.arguments
        ]
        return _call(callee.reference, pointers, step.run.first, step.run.last)

    calls = [
        call
        for step in plan.steps
        for call in (move(step) if isinstance(step, Move) else [run(step)])
    ]
    body = tirx.SeqStmt([tirx.Evaluate(call) for call in calls])
    return _function(parameters, images.repeated(body, image))


def whole_range(function: tirx.PrimFunc, reference: Any, units: int) -> tirx.PrimFunc:
    """Write a kernel as calls of its ranged form on all of its pixels, one for each image."""
    buffers = [
        tirx.decl_buffer([int(extent) for extent in p.shape], str(p.dtype), str(p.name))
        for p in function.params
    ]
    images = Images(images_of(function), frozenset(tensors_of_images(function)))
    image = images.variable
    pointers = [
        images.part(buffer, image) if place in images.inputs else buffer.data
        for place, buffer in enumerate(buffers)
    ]
    call = tirx.Evaluate(_call(reference, pointers, 0, units))
    return _function(buffers, images.repeated(call, image))


def _call(reference: Any, pointers: Sequence[Any], first: int, last: int) -> Any:
    """Call a ranged kernel."""
    bounds = [tirx.IntImm(RANGE_TYPE, bound) for bound in (first, last)]
    return tvm.ir.Call(reference, [*pointers, *bounds], ret_ty=PrimType("int32"))


def _function(parameters: Sequence[Any], body: Any) -> tirx.PrimFunc:
    return tirx.PrimFunc(parameters, body).with_attr({NO_ALIAS: True, "s_tir": True})
