"""Kernels that slide a window over each channel: depthwise convolution, max and average pool, mean.

Channels are last and stand in vectors; each is treated alike, so an order of channels passes
through untouched. Padding is read as the combiner's neutral element.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF, INT8, INT32
from shuffledeploy.compiler.kernels.blocks import (
    ACCUMULATE,
    OUTPUT,
    WEIGHT,
    EpilogueStep,
    apply_steps,
    axes,
    epilogue_operands,
    named,
    starting_bias,
    written,
)
from shuffledeploy.compiler.kernels.int8_products import words_of
from shuffledeploy.compiler.kernels.int8_sums import (
    AS_WHOLE_NUMBERS,
    Int8Sums,
    at_channel,
    factors_of,
    scaled_sum,
)
from shuffledeploy.compiler.kernels.operations import number
from shuffledeploy.compiler.kernels.pixel_order import AS_THEY_LIE, PixelOrder
from shuffledeploy.compiler.kernels.sliding_window import WindowPlace, output_extent, place
from shuffledeploy.compiler.kernels.window_pairs import accumulate_pairs
from shuffledeploy.compiler.kernels.window_words import (
    accumulate_columns,
    channel_at,
    computed_channels,
)

# Longest sum in half precision of a pool: longer ones are summed in float32.
LONGEST_HALF_SUM = 25
# The least number of each type.
LOWEST = {FLOAT: -3.4028234663852886e38, HALF: -65504.0}


@dataclasses.dataclass(frozen=True)
class Window:
    """What one window kernel computes; activations are NHWC with N = 1.

    Attributes
    ----------
    combine : str
        ``multiply_add`` (depthwise convolution, with a weight), ``max`` or ``sum``.
    height, width, channels : int
        Of the input.
    kernel, stride, padding, dilation : tuple of int
        Height and width; padding is top, left, bottom, right.
    divisor : float
        What a sum is divided by; 0 where the divisor is the number of pixels inside the image.
    epilogue : tuple of EpilogueStep
        What follows, in order.
    dtype : str
        Of activations, weights and sums. Of int8 sums are int32, and what follows is float32.
    written : str
        Type of the output, which the epilogue's last step gives; empty where it is `dtype`, or
        float32 of int8.
    scale, offset : float
        What an average of int8 is multiplied with, and what is then added; a depthwise convolution
        has a scale of each channel.
    outside : int
        Which int8 stands for zero in the input, and so for what lies outside of the image.
    sums : Int8Sums
        How a depthwise convolution's sums of int8 are read.
    in_pairs : bool
        Whether a depthwise convolution of int8 multiplies two columns at a time, not four rows.
    pixels : PixelOrder
        Where the input's pixels stand in memory.
    vector : int
        Channels of a vector where the last one may overlap the one before; 0 where none does.
    """

    combine: str
    height: int
    width: int
    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    divisor: float
    epilogue: tuple[EpilogueStep, ...]
    dtype: str = "float32"
    written: str = ""
    scale: float = 1.0
    offset: float = 0.0
    outside: int = 0
    sums: Int8Sums = AS_WHOLE_NUMBERS
    in_pairs: bool = False
    pixels: PixelOrder = AS_THEY_LIE
    vector: int = 0

    @property
    def in_int8(self) -> bool:
        """Whether it reads int8."""
        return self.dtype == INT8

    @property
    def multiplies_int8(self) -> bool:
        """Whether it is a depthwise convolution of int8."""
        return self.in_int8 and self.combine == "multiply_add"

    @property
    def is_biased(self) -> bool:
        """Whether sums start from a bias."""
        return self.combine == "multiply_add" and starting_bias(self.epilogue)

    @property
    def computed(self) -> str:
        """Type of the epilogue's numbers."""
        return FLOAT if self.in_int8 else self.dtype

    @property
    def output_height(self) -> int:
        """Rows of the output."""
        return output_extent(self.height, self, 0)

    @property
    def output_width(self) -> int:
        """Columns of the output."""
        return output_extent(self.width, self, 1)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output, NHWC."""
        return (1, self.output_height, self.output_width, self.channels)

    @property
    def taps(self) -> int:
        """Pixels of the window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def sums_shares(self) -> bool:
        """Whether each pixel is divided before it is added: half's numbers end at 65,504."""
        return self.dtype == HALF == self.sum_type

    @property
    def sum_type(self) -> str:
        """Type of the sums: half loses digits of long ones."""
        if self.in_int8:
            return INT32
        long = self.combine == "sum" and self.taps > LONGEST_HALF_SUM
        return FLOAT if long else self.dtype

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a depthwise convolution; 0 for a pool."""
        if self.combine != "multiply_add":
            return 0
        return (
            self.output_height * self.output_width * self.channels * self.kernel[0] * self.kernel[1]
        )


def primitive_function(window: Window) -> tirx.PrimFunc:
    """Write the kernel as an unscheduled TIR function.

    Returns
    -------
    tirx.PrimFunc
        Parameters: input, weight ``(kh, kw, C)`` of a depthwise convolution (of int8 as words
        unless they go in pairs, with a scale of each channel, and an offset where sums are scaled
        at once), the epilogue's operands in order, output.
    """
    return written(lambda: _body(window))


def _body(window: Window) -> None:
    shape = (1, *window.pixels.in_memory(window.height, window.width, window.channels))
    x = T.arg("x", T.buffer(shape, window.dtype))
    weight = factors = None
    if window.multiplies_int8:
        height, width = window.kernel
        rows, kind = (height, INT8) if window.in_pairs else (words_of(height), INT32)
        weight = T.arg(WEIGHT, T.buffer((rows, width, computed_channels(window)), kind))
        factors = factors_of(window.sums, computed_channels(window))
    elif window.combine == "multiply_add":
        weight = T.arg(WEIGHT, T.buffer((*window.kernel, window.channels), window.dtype))
    summed = window.sum_type if window.in_int8 else window.dtype
    starts = (computed_channels(window) if window.multiplies_int8 else window.channels,)
    operands = epilogue_operands(
        window.epilogue, window.output_shape, starts, window.computed, summed
    )
    out = T.arg("out", T.buffer(window.output_shape, window.written or window.computed))
    if window.multiplies_int8:
        accumulate = accumulate_pairs if window.in_pairs else accumulate_columns
        total = accumulate(window, x, weight, operands[0])
    else:
        total = _accumulate(window, x, weight, operands)
    columns = window.output_width
    with T.grid(window.output_height * columns, computed_channels(window)) as loops:
        with T.sblock(OUTPUT):
            p, c = axes("SS", "p c", loops)
            row, column = tirx.floordiv(p, columns), tirx.floormod(p, columns)
            value = total[p, c]
            if factors is not None:
                value = scaled_sum(window.sums, value, *at_channel(factors, c))
            if window.combine == "sum":
                value = _average(window, value, row, column)
            at = (0, row, column, channel_at(window, c))
            after = 1 if window.is_biased else 0
            value = apply_steps(window.epilogue[after:], operands[after:], value, at)
            T.buffer_store(out, value, list(at))


def _accumulate(window: Window, x: Any, weight: Any, operands: list[Any]) -> Any:
    neutral = LOWEST[window.dtype] if window.combine == "max" else 0.0
    pixels = window.output_height * window.output_width
    channels = computed_channels(window)
    total = named("total", T.sblock_alloc_buffer((pixels, channels), window.sum_type))
    columns = window.output_width
    with T.grid(pixels, channels, *window.kernel) as loops:
        with T.sblock(ACCUMULATE):
            p, c, kh, kw = axes("SSRR", "p c kh kw", loops)
            channel = channel_at(window, c)
            with T.init():
                start = operands[0][channel] if window.is_biased else number(neutral, total[p, c])
                T.buffer_store(total, start, [p, c])
            row = place(window, 0, window.height, tirx.floordiv(p, columns), kh)
            column = place(window, 1, window.width, tirx.floormod(p, columns), kw)
            at = (row.index, column.index, channel, window.channels)
            value = x[(0, *window.pixels.in_square(*at))]
            combined = _combined(
                window, total[p, c], (row, column), value, weight, (kh, kw, channel)
            )
            T.buffer_store(total, combined, [p, c])
    return total


def _combined(
    window: Window,
    so_far: Any,
    places: tuple[WindowPlace, WindowPlace],
    value: Any,
    weight: Any,
    at: Any,
) -> Any:
    row, column = places
    if window.in_int8:
        taken = column.or_else(tirx.Cast(INT32, value), window.outside)
        return so_far + row.or_else(taken, window.outside)
    if window.combine == "multiply_add":
        # A whole row lies outside or none of it: one weight is dropped for all its pixels.
        return so_far + column.or_zero(value) * row.or_zero(weight[at])
    if window.combine == "max":
        if window.dilation != (1, 1):
            lowest = LOWEST[window.dtype]
            value = row.or_else(column.or_else(value, lowest), lowest)
        # What is read in place of an element outside is in the same window, if it is not dilated.
        return tirx.max(so_far, value)
    if window.sums_shares:
        value = value * number(1 / window.taps, value)
    elif window.sum_type != window.dtype:
        value = tirx.Cast(window.sum_type, value)
    return so_far + row.or_zero(column.or_zero(value))


def _average(window: Window, total: Any, row: Any, column: Any) -> Any:
    """Divide a sum by the pixels that went into it."""
    if window.in_int8:
        # What lies outside was added as so many zeros: their int8 are to be divided, too.
        divisor, missing = _divisor(window, row, column), 0.0
        if not window.divisor and window.outside:
            missing = tirx.Cast(FLOAT, window.outside) * (T.float32(window.taps) - divisor)
        average = (tirx.Cast(FLOAT, total) - missing) * (T.float32(window.scale) / divisor)
        return average + T.float32(window.offset) if window.offset else average
    if not window.sums_shares:
        average = total * (number(1, total) / _divisor(window, row, column))
        return average if window.sum_type == window.dtype else tirx.Cast(window.dtype, average)
    if window.divisor:
        return total
    share = T.float32(window.taps) / _divisor(window, row, column)
    return total * tirx.Cast(window.dtype, share)


def _divisor(window: Window, row: Any, column: Any) -> Any:
    if window.divisor:
        return T.float32(window.divisor)
    top, left = window.padding[:2]
    tall = _inside(row * window.stride[0] - top, window.kernel[0], window.height)
    wide = _inside(column * window.stride[1] - left, window.kernel[1], window.width)
    return tirx.Cast("float32", tall * wide)


def _inside(start: Any, extent: int, size: int) -> Any:
    return tirx.min(start + extent, size) - tirx.max(start, 0)
