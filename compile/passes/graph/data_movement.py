"""Following data: which element of which tensor stands where after a chain of pure moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import Array, bindings_of, constant_of, operator, shape_of

CHANNEL_AXIS = 1
#: Axes of a feature map.
_NCHW = 4


@dataclasses.dataclass(frozen=True)
class Movement:
    """A tensor whose every element is some element of one source.

    Attributes
    ----------
    source : relax.Var
        The tensor that the elements come from.
    source_shape : tuple of int
        Its shape.
    elements : Array
        Flat index into the source for each element of the moved tensor, in the moved one's shape.
    """

    source: relax.Var
    source_shape: tuple[int, ...]
    elements: Array

    def channel_order(self) -> Array | None:
        """Return the channel of the source behind each channel, where the move only picks channels.

        Returns
        -------
        Array or None
            ``order[c]`` for each channel ``c`` of the moved tensor, int64. A flattened
            ``(N, C, 1, 1)`` counts as ``(N, C)``, and ``(N, C, H, W)`` flattened to ``(N, CHW)``
            is not a choice of channels. ``None`` where the move does anything else.
        """
        shape, source_shape = self.elements.shape, self.source_shape
        if len(source_shape) < 2 or len(shape) < 2 or shape[0] != source_shape[0]:
            return None
        inner = int(np.prod(source_shape[2:], dtype=np.int64))
        if shape[2:] != source_shape[2:] and (inner != 1 or int(np.prod(shape[2:])) != 1):
            return None
        flat = self.elements.reshape(shape[0], shape[1], inner)
        order: Array = flat[0, :, 0] // inner
        batch = np.arange(shape[0]).reshape(-1, 1, 1) * source_shape[1]
        expected = (batch + order.reshape(1, -1, 1)) * inner + np.arange(inner)
        return order.astype(np.int64) if np.array_equal(flat, expected) else None


def follow_movements(module: tvm.IRModule) -> dict[relax.Var, Movement]:
    """Find every variable of the entry function that only moves elements of one other tensor."""
    found: dict[relax.Var, Movement] = {}
    tuples: dict[relax.Var, list[Movement | None]] = {}

    def movement(expr: Any) -> Movement | None:
        if not isinstance(expr, relax.Var):
            return None
        if expr in found:
            return found[expr]
        shape = shape_of(expr)
        if shape is None or not shape:
            return None
        return Movement(expr, shape, np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape))

    for variable, value in bindings_of(module):
        if operator(value) == "relax.split":
            tuples[variable] = _split(movement(value.args[0]), value)
        elif isinstance(value, relax.TupleGetItem) and value.tuple_value in tuples:
            moved = tuples[value.tuple_value][value.index]
            if moved is not None:
                found[variable] = moved
        else:
            moved = _move(value, movement)
            if moved is not None:
                found[variable] = moved
    return found


def _move(value: Any, movement: Any) -> Movement | None:
    if isinstance(value, relax.Var):
        return movement(value)  # type: ignore[no-any-return]
    name = operator(value)
    if name in ("relax.concat", "relax.stack"):
        return _join(name, value, movement)
    if name not in MOVES:
        return None
    source = movement(value.args[0])
    shape = shape_of(value)
    if source is None or shape is None:
        return None
    elements = MOVES[name](value, source.elements)
    return None if elements is None else dataclasses.replace(source, elements=elements)


def _join(name: str, value: Any, movement: Any) -> Movement | None:
    if not isinstance(value.args[0], relax.Tuple):
        return None
    parts = [movement(field) for field in value.args[0].fields]
    if any(part is None or part.source != parts[0].source for part in parts):
        return None
    elements = [part.elements for part in parts]
    axis = int(value.attrs.axis or 0)
    joined = np.concatenate(elements, axis) if name == "relax.concat" else np.stack(elements, axis)
    return dataclasses.replace(parts[0], elements=joined)


def _split(source: Movement | None, value: Any) -> list[Movement | None]:
    count = len(value.ty.fields)
    if source is None:
        return [None] * count
    extents = [shape_of_type(field) for field in value.ty.fields]
    axis = int(value.attrs.axis)
    if any(extent is None for extent in extents):
        return [None] * count
    ends = np.cumsum([extent[axis] for extent in extents if extent is not None])[:-1]
    pieces = np.split(source.elements, ends, axis)
    return [dataclasses.replace(source, elements=piece) for piece in pieces]


def shape_of_type(ty: Any) -> tuple[int, ...] | None:
    """Shape of a tensor type with fixed extents, ``None`` for any other type."""
    if not isinstance(ty, relax.TensorType) or not isinstance(ty.shape, relax.ShapeExpr):
        return None
    return tuple(int(extent) for extent in ty.shape)


def _permute(value: Any, elements: Array) -> Array:
    axes = value.attrs.axes
    return np.transpose(elements, None if axes is None else [int(axis) for axis in axes])


def _to_result_shape(value: Any, elements: Array) -> Array | None:
    shape = shape_of(value)
    return None if shape is None else elements.reshape(shape)


def _slice(value: Any, elements: Array) -> Array | None:
    fields = []
    for argument in value.args[1:]:
        if not isinstance(argument, relax.Tuple):
            return None
        try:
            fields.append([int(field) for field in argument.fields])
        except (TypeError, ValueError):
            fields.append([int(field.value) for field in argument.fields])
    axes, begins, ends = fields[:3]
    strides = fields[3] if len(fields) > 3 else [1] * len(axes)
    window = [slice(None)] * elements.ndim
    for axis, begin, end, stride in zip(axes, begins, ends, strides, strict=True):
        window[axis] = slice(begin, end, stride)
    chosen: Array = elements[tuple(window)]
    return chosen if chosen.shape == shape_of(value) else None


def _take(value: Any, elements: Array) -> Array | None:
    index = constant_of(value.args[1])
    if index is None or value.attrs.axis is None or moves_pixels(value):
        return None
    taken: Array = np.take(elements, index, axis=int(value.attrs.axis))
    return taken if taken.shape == shape_of(value) else None


def moves_pixels(take: Any) -> bool:
    """Whether a `take` puts the rows or columns of a feature map, NCHW, in another order."""
    shape, axis, index = shape_of(take.args[0]), take.attrs.axis, constant_of(take.args[1])
    of_image = shape is not None and len(shape) == _NCHW and axis is not None
    return of_image and int(axis) > CHANNEL_AXIS and index is not None and index.ndim == 1


def _flip(value: Any, elements: Array) -> Array:
    return np.flip(elements, int(value.attrs.axis))


#: By operator: where the elements of its result stand, of where those of its first argument do.
MOVES: dict[str, Callable[[Any, Array], Array | None]] = {
    "relax.flip": _flip,
    "relax.reshape": _to_result_shape,
    "relax.flatten": _to_result_shape,
    "relax.squeeze": _to_result_shape,
    "relax.expand_dims": _to_result_shape,
    "relax.permute_dims": _permute,
    "relax.strided_slice": _slice,
    "relax.take": _take,
}
