"""A convolution of pixels that became channels is one of larger windows over the image itself.

Before::

    x[1, 3, 64, 48] -> reshape -> permute -> reshape[1, 12, 32, 24] -> conv2d(W[8, 12, 3, 3])

After::

    x[1, 3, 64, 48] -> conv2d(V[8, 3, 6, 6], strides (2, 2))

A pixel unshuffle moves the pixels of each square of r by r to channels of one pixel, as the first
layers of some detectors and super-resolution networks do, by slices and a concatenation, too. Its
window of k by k pixels is a window of rk by rk pixels of the image, and multiplies as often.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Array,
    Current,
    constant,
    constant_of,
    operator,
    rewrite,
)
from shuffledeploy.compiler.passes.graph.data_movement import Movement, follow_movements


def unshuffles_in_windows(module: tvm.IRModule) -> tvm.IRModule:
    """Let dense convolutions of a module in NCHW read what their pixels were unshuffled from."""
    movements = follow_movements(module)

    def replace(_: relax.BlockBuilder, __: relax.Var, value: Any, current: Current) -> Any:
        if operator(value) != "relax.nn.conv2d" or int(value.attrs.groups) != 1:
            return None
        moved, weight = movements.get(value.args[0]), constant_of(value.args[1])
        found = None if moved is None or weight is None else _unshuffle(moved)
        dense = all(int(step) == 1 for step in value.attrs.dilation)
        if found is None or moved is None or weight is None or not dense:
            return None
        factor, places = found
        strides, padding = (
            [factor * int(extent) for extent in field]
            for field in (value.attrs.strides, value.attrs.padding)
        )
        wider = constant(_over_pixels(weight, factor, places))
        return relax.op.nn.conv2d(current(moved.source), wider, strides, padding)

    return rewrite(module, replace)


def _unshuffle(moved: Movement) -> tuple[int, Array] | None:
    """Read a movement of an image's pixels to channels.

    Returns
    -------
    tuple of int and Array, optional
        The extent r of a square, and of each channel the source's channel and the row and column
        in the square, ``(C, 3)``; ``None`` where the movement does anything else.
    """
    before, after = moved.source_shape, moved.elements.shape
    if len(before) != len(after) or len(before) != 4 or before[0] != after[0]:
        return None
    factor = math.isqrt(after[1] // before[1])
    images, channels, height, width = before
    if factor < 2 or after[1:] != (channels * factor**2, height // factor, width // factor):
        return None
    if height % factor or width % factor:
        return None
    places = np.stack(np.unravel_index(moved.elements[0, :, 0, 0], before)[1:], axis=1)
    # Of each square all pixels, once.
    if places[:, 1:].max() >= factor or len(np.unique(places, axis=0)) != len(places):
        return None
    whole = np.arange(math.prod(before)).reshape(before)
    squares = whole.reshape(images, channels, height // factor, factor, width // factor, factor)
    expected = squares[:, places[:, 0], :, places[:, 1], :, places[:, 2]].transpose(1, 0, 2, 3)
    return (factor, places) if np.array_equal(expected, moved.elements) else None


def _over_pixels(weight: Array, factor: int, places: Array) -> Array:
    """Give the weights ``(O, C, rk, rk)`` for the image of those ``(O, r * r * C, k, k)``."""
    outputs, channels, height, width = weight.shape
    wide = np.zeros(
        (outputs, channels // factor**2, height, factor, width, factor), dtype=weight.dtype
    )
    channel, row, column = places.T
    wide[:, channel, :, row, :, column] = weight.transpose(1, 0, 2, 3)
    return wide.reshape(outputs, -1, height * factor, width * factor)
