"""A pixel shuffle moves whole pixels: channels are put in the order of its squares first.

Before::

    x[1, 8, 4, 5] -> reshape -> permute -> reshape[1, 2, 8, 10]       # channels (C, r, r)

After::

    x[1, 8, 4, 5] -> take(order) -> reshape -> permute -> reshape[1, 2, 8, 10]   # (r, r, C)

The dense convolution before it writes in that order (`write_in_read_order`), and readers find the
channels of a pixel beside each other (`compiler.passes.graph.reordered_reads`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import Array, Current, rewrite, shape_of
from shuffledeploy.compiler.passes.graph.channel_views import take_channels
from shuffledeploy.compiler.passes.graph.data_movement import Movement, follow_movements
from shuffledeploy.compiler.passes.graph.reordered_reads import between_reshapes

#: How a pixel shuffle transposes (N, r, r, C, H, W), which it then reads as (N, C, rH, rW).
SQUARES_FIRST = (0, 3, 4, 1, 5, 2)


def pixel_shuffles(module: tvm.IRModule) -> tvm.IRModule:
    """Write the pixel shuffles of a module in NCHW in their order of squares."""
    movements = follow_movements(module)

    def replace(builder: relax.BlockBuilder, variable: relax.Var, _: Any, current: Current) -> Any:
        moved = movements.get(variable)
        order = None if moved is None else _order_of_squares(moved)
        if moved is None or order is None:
            return None
        images, channels, height, width = moved.source_shape
        enlarged = moved.elements.shape
        square = enlarged[2] // height
        tensor = current(moved.source)
        if not np.array_equal(order, np.arange(channels)):
            tensor = builder.emit(take_channels(tensor, order))
        apart = (images, square, square, enlarged[1], height, width)
        tensor = builder.emit(relax.op.reshape(tensor, apart))
        tensor = builder.emit(relax.op.permute_dims(tensor, list(SQUARES_FIRST)))
        return relax.op.reshape(tensor, enlarged)

    return rewrite(module, replace)


def shuffled_squares(tensor: Any, definition: Callable[[Any], Any]) -> tuple[Any, int] | None:
    """Give what a pixel shuffle in NCHW, in the order of squares, reads, and their extent.

    Returns
    -------
    tuple, optional
        ``None`` where a tensor is anything else.
    """
    found = between_reshapes(tensor, definition)
    if found is None or found[1] != SQUARES_FIRST:
        return None
    source, _, apart = found
    images, square, columns, pixel, height, width = apart
    shuffles = (images, square * columns * pixel, height, width) == shape_of(source)
    enlarged = (images, pixel, square * height, square * width) == shape_of(tensor)
    return (source, square) if shuffles and enlarged and square == columns else None


def _order_of_squares(moved: Movement) -> Array | None:
    """Give the channels of a pixel shuffle by squares' rows, columns and channels.

    Returns
    -------
    Array or None
        ``order[(i * r + j) * C + c]`` is the channel that goes to channel ``c`` of the pixel in
        row ``i`` and column ``j`` of each square; ``None`` where the movement does anything else.
    """
    before, after = moved.source_shape, moved.elements.shape
    if len(before) != 4 or len(after) != 4 or before[0] != after[0] or after[2] <= before[2]:
        return None
    square = after[2] // before[2]
    images, channels, height, width = before
    if after[1:] != (channels // square**2, height * square, width * square):
        return None
    inside = moved.elements[0, :, :square, :square] // (height * width)
    order = np.asarray(inside.transpose(1, 2, 0).reshape(-1), np.int64)
    if len(order) != channels or order.max() >= channels:
        return None
    whole = np.arange(math.prod(before)).reshape(before)[:, order]
    apart = whole.reshape(images, square, square, after[1], height, width)
    expected = apart.transpose(SQUARES_FIRST).reshape(after)
    return order if np.array_equal(expected, moved.elements) else None
