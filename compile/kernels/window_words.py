"""Sums of a depthwise convolution in int8: four rows of a window's column in one dot product.

Channels stand side by side in memory, and a dot product takes four int8 of each channel that stand
side by side. Vectors of channels of four rows, interleaved twice, are that; neighbouring windows
share the columns that they both reach::

    rows   a0 a1 a2 ..   b0 b1 b2 ..   c0 c1 c2 ..   d0 d1 d2 ..
    words  a0 b0 c0 d0   a1 b1 c1 d1   a2 b2 c2 d2   ..

Weights beyond a window's last row are zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import INT8, INT32
from shuffledeploy.compiler.kernels.blocks import ACCUMULATE, TAKEN, Read, axes, named
from shuffledeploy.compiler.kernels.int8_products import FOUR, column, dot, words_of
from shuffledeploy.compiler.kernels.sliding_window import place

if TYPE_CHECKING:
    from shuffledeploy.compiler.kernels.window import Window

#: Channels of a vector of int8 that may overlap the one before it.
EIGHT = 8


def computed_channels(window: Window) -> int:
    """Count the channels that are computed: in whole vectors, the last over the one before.

    What is computed twice is written twice: a tensor that is added may be the output's memory.
    """
    reads_tensors = any(step.reads is Read.TENSOR for step in window.epilogue)
    if not window.vector or window.channels < window.vector or reads_tensors:
        return window.channels
    return -(-window.channels // window.vector) * window.vector


def channel_at(window: Window, place: Any) -> Any:
    """Tell the channel at a place among those that are computed."""
    computed = computed_channels(window)
    if computed == window.channels:
        return place
    beyond = computed - window.channels
    return place - tirx.floordiv(place, computed - window.vector) * beyond


def channel_places(window: Window) -> list[int]:
    """List the channel at each of these places."""
    computed = computed_channels(window)
    beyond, last = computed - window.channels, computed - window.vector
    return [place - beyond if place >= last else place for place in range(computed)]


def accumulate_columns(window: Window, x: Any, weight: Any, start: Any) -> Any:
    """Write the blocks that add up dot products.

    Parameters
    ----------
    window : Window
        The kernel.
    x, weight, start : Buffer
        Input, int8; words of weights ``(words, kw, C')``; what sums start from ``(C',)``,
        int32, of the channels that are computed.

    Returns
    -------
    Buffer
        The sums ``(pixels, C')``, int32.
    """
    pixels = window.output_height * window.output_width
    taps, channels = (words_of(window.kernel[0]), window.kernel[1]), computed_channels(window)
    taken = named("window", T.sblock_alloc_buffer((pixels, *taps, channels), INT32))
    with T.grid(pixels, *taps, channels) as loops:
        with T.sblock(TAKEN):
            p, word, kw, c = axes("SSSS", "p word kw c", loops)
            rows = [_row_of_tap(window, word * FOUR + place) for place in range(FOUR)]
            apart = [element(window, x, p, (row, kw), c) for row in rows]
            T.buffer_store(taken, column(*apart), [p, word, kw, c])
    total = named("total", T.sblock_alloc_buffer((pixels, channels), INT32))
    with T.grid(pixels, channels, *taps) as loops:
        with T.sblock(ACCUMULATE):
            p, c, word, kw = axes("SSRR", "p c word kw", loops)
            with T.init():
                T.buffer_store(total, start[c], [p, c])
            added = dot(total[p, c], taken[p, word, kw, c], weight[word, kw, c])
            T.buffer_store(total, added, [p, c])
    return total


def _row_of_tap(window: Window, tap: Any) -> Any:
    """Tell which row of a window stands at a place of words; beyond its last row, that again."""
    height = window.kernel[0]
    return tirx.min(tap, height - 1) if height % FOUR else tap


def element(window: Window, x: Any, pixel: Any, at_tap: tuple[Any, Any], channel: Any) -> Any:
    """Read what the window of a pixel has in a row and a column, at one of the computed channels.

    Outside of the image it has the int8 that stands for zero.
    """
    kh, kw = at_tap
    columns = window.output_width
    row = place(window, 0, window.height, tirx.floordiv(pixel, columns), kh)
    at = place(window, 1, window.width, tirx.floormod(pixel, columns), kw)
    outside = tirx.IntImm(INT8, window.outside)
    place_of = (row.index, at.index, channel_at(window, channel), window.channels)
    value = x[(0, *window.pixels.in_square(*place_of))]
    for edge in (at, row):
        if edge.inside is not None:
            value = tirx.Select(edge.inside, value, outside)
    return value
