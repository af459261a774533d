"""Sums of a depthwise convolution in int8 on cores without dot products: two columns at a time.

Vectors of channels are multiplied as they stand in memory. Two products of eight bits fit 16, so
those of two columns of a window are added there, and their sum to one of 32 bits::

    sum += int32(int16(x[row, column]) * w[row, column] + int16(x[row, column + 1]) * w[...])

A window's last column goes alone where there is no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import INT16, INT32
from shuffledeploy.compiler.kernels.blocks import ACCUMULATE, axes, named
from shuffledeploy.compiler.kernels.int8_products import TWO
from shuffledeploy.compiler.kernels.window_words import computed_channels, element

if TYPE_CHECKING:
    from shuffledeploy.compiler.kernels.window import Window


def accumulate_pairs(window: Window, x: Any, weight: Any, start: Any) -> Any:
    """Write the block that adds up products of two columns.

    Parameters
    ----------
    window : Window
        The kernel.
    x, weight, start : Buffer
        Input and weights ``(kh, kw, C')``, int8; what sums start from ``(C',)``, int32, of the
        channels that are computed.

    Returns
    -------
    Buffer
        The sums ``(pixels, C')``, int32.
    """
    pixels = window.output_height * window.output_width
    channels, (height, width) = computed_channels(window), window.kernel
    total = named("total", T.sblock_alloc_buffer((pixels, channels), INT32))
    with T.grid(pixels, channels, height, -(-width // TWO)) as loops:
        with T.sblock(ACCUMULATE):
            p, c, kh, pair = axes("SSRR", "p c kh pair", loops)
            with T.init():
                T.buffer_store(total, start[c], [p, c])
            products = _product(window, x, weight, (p, c, kh, pair * TWO))
            if width > 1:
                second = pair * TWO + 1
                more = _product(window, x, weight, (p, c, kh, tirx.min(second, width - 1)))
                zero = tirx.IntImm(INT16, 0)
                products += more if width % TWO == 0 else tirx.Select(second < width, more, zero)
            T.buffer_store(total, total[p, c] + tirx.Cast(INT32, products), [p, c])
    return total


def _product(window: Window, x: Any, weight: Any, at: tuple[Any, Any, Any, Any]) -> Any:
    """Multiply what a window has in a row and a column with its weight."""
    pixel, channel, kh, kw = at
    value = element(window, x, pixel, (kh, kw), channel)
    return tirx.Cast(INT16, value) * tirx.Cast(INT16, weight[kh, kw, channel])
