"""What stands in memory behind a tensor whose channels or pixels are read in another order.

`take`s with constant indices say the order: of channels what is left of shuffles, of rows and
columns images that are enlarged to the nearest pixels, or that have a border of their own pixels.
A pixel shuffle is a transposition between two reshapes (`compiler.passes.graph.pixel_shuffles`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from shuffledeploy.compiler.ir.graph import Array, constant_of, operator, shape_of
from shuffledeploy.compiler.kernels.pixel_order import (
    AS_THEY_LIE,
    AxisOrder,
    PixelOrder,
    axis_order,
)

#: Axes of a feature map, channels last.
_NHWC = 4
_PIXEL_AXES = (1, 2)
#: How a pixel shuffle transposes (N, H, W, r, r, C), which it then reads as (N, rH, rW, C).
SQUARES_APART = (0, 1, 3, 2, 4, 5)


@dataclasses.dataclass(frozen=True)
class Reordered:
    """A tensor as another one is read, channels last.

    Attributes
    ----------
    tensor : relax.Expr
        What stands in memory.
    channels : Array or None
        Of `tensor`, one for each channel of the other; ``None`` where they are read as they lie.
    pixels : PixelOrder
        The same of rows and columns.
    """

    tensor: Any
    channels: Array | None = None
    pixels: PixelOrder = AS_THEY_LIE

    @property
    def stored(self) -> int:
        """Channels of `tensor` where a table names those that are read; else 0."""
        return 0 if self.channels is None else (shape_of(self.tensor) or (0,))[-1]

    @property
    def tables(self) -> list[relax.Constant]:
        """That table as a constant that a kernel reads, if there is one."""
        return [] if self.channels is None else [relax.const(self.channels.astype(np.int32))]


def reordered(tensor: Any, definition: Callable[[Any], Any]) -> Reordered:
    """Look through a pixel shuffle, or `take`s of a tensor's channels, rows and columns.

    Parameters
    ----------
    tensor : relax.Expr
        What is read: a feature map, NHWC, or rows of channels.
    definition : Callable
        What a variable is bound to; anything else for one that stands in memory.
    """
    square = _shuffled(tensor, definition)
    if square is not None:
        return Reordered(square[0], None, PixelOrder(square=square[1]))
    orders: dict[int, Array] = {}
    while isinstance(tensor, relax.Var) and (taken := _taken(definition(tensor))) is not None:
        source, axis, places = taken
        combined = places[orders[axis]] if axis in orders else places
        if axis in _pixel_axes(source) and _axis_order(combined, source, axis) is None:
            break
        tensor, orders[axis] = source, combined
    last = len(shape_of(tensor) or ()) - 1
    rows, columns = (
        _axis_order(orders[axis], tensor, axis) if axis in orders and axis != last else None
        for axis in _PIXEL_AXES
    )
    return Reordered(tensor, orders.get(last), PixelOrder(rows, columns))


def _taken(value: Any) -> tuple[Any, int, Array] | None:
    """Read a `take` along one axis: of what, along which, and the places."""
    if operator(value) != "relax.take" or value.attrs.axis is None:
        return None
    source, places = value.args[0], constant_of(value.args[1])
    shape, axis = shape_of(source), int(value.attrs.axis)
    # A single index takes its axis away.
    if shape is None or places is None or places.ndim != 1:
        return None
    if axis != len(shape) - 1 and axis not in _pixel_axes(source):
        return None
    return source, axis, np.asarray(places)


def between_reshapes(
    tensor: Any, definition: Callable[[Any], Any]
) -> tuple[Any, tuple[int, ...], tuple[int, ...]] | None:
    """Read a transposition between two reshapes.

    Returns
    -------
    tuple, optional
        What the first reshape reads, the axes of the transposition, and the shape of what it
        reads; ``None`` where a tensor is anything else.
    """
    values: list[Any] = []
    for name in ("relax.reshape", "relax.permute_dims", "relax.reshape"):
        value: Any = definition(tensor) if isinstance(tensor, relax.Var) else None
        if operator(value) != name:
            return None
        values.append(value)
        tensor = value.args[0]
    axes, apart = values[1].attrs.axes, shape_of(values[2])
    if axes is None or apart is None:
        return None
    return tensor, tuple(int(axis) for axis in axes), apart


def _shuffled(tensor: Any, definition: Callable[[Any], Any]) -> tuple[Any, int] | None:
    """Read a pixel shuffle of a feature map: of what, and the extent of its squares."""
    found = between_reshapes(tensor, definition)
    if found is None or found[1] != SQUARES_APART:
        return None
    source, _, apart = found
    images, height, width, square, columns, pixel = apart
    shuffles = (images, height, width, square * columns * pixel) == shape_of(source)
    enlarged = (images, height * square, width * square, pixel) == shape_of(tensor)
    return (source, square) if shuffles and enlarged and square == columns else None


def _pixel_axes(tensor: Any) -> tuple[int, ...]:
    return _PIXEL_AXES if len(shape_of(tensor) or ()) == _NHWC else ()


def _axis_order(places: Array, tensor: Any, axis: int) -> AxisOrder | None:
    shape = shape_of(tensor)
    assert shape is not None
    return axis_order(places, shape[axis])


def is_reordered(variable: relax.Var, definition: Callable[[Any], Any]) -> bool:
    """Whether a variable is another tensor in another order of channels or pixels."""
    return not reordered(variable, definition).tensor.same_as(variable)
