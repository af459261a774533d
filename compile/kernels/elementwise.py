"""Operations on each element of a feature map that no kernel before them can take along.

A scale of channels that depends on all pixels (squeeze and excitation) has to wait for them, and a
norm and ReLU before a convolution find a map that others read as it is. Where the channels of that
map are read in another order, or some of them are, a table names them.
"""

from __future__ import annotations

import dataclasses

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.tvm_edges import NO_ALIAS
from shuffledeploy.compiler.kernels.blocks import (
    OUTPUT,
    EpilogueStep,
    apply_steps,
    axes,
    epilogue_operands,
)
from shuffledeploy.compiler.kernels.pixel_order import AS_THEY_LIE, PixelOrder
from shuffledeploy.compiler.kernels.tiling import Choose, Core, Form, divisors

# Floats in one step over a pixel's channels, in vectors.
VECTORS_IN_STEP = 4


@dataclasses.dataclass(frozen=True)
class Elementwise:
    """What one such kernel computes; activations are NHWC with N = 1.

    Attributes
    ----------
    height, width, channels : int
        Of input and output.
    epilogue : tuple of EpilogueStep
        All that is computed, in order.
    dtype : str
        Of the elements.
    stored : int
        Channels of an input that is read by a table; 0 where it is read as it lies.
    pixels : PixelOrder
        Where the input's pixels stand in memory.
    """

    height: int
    width: int
    channels: int
    epilogue: tuple[EpilogueStep, ...]
    dtype: str = "float32"
    stored: int = 0
    pixels: PixelOrder = AS_THEY_LIE

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output, NHWC."""
        return (1, self.height, self.width, self.channels)


def primitive_function(elementwise: Elementwise) -> tirx.PrimFunc:
    """Write the kernel as an unscheduled TIR function.

    Returns
    -------
    tirx.PrimFunc
        Parameters: input, the steps' operands in order, the table of its channels where there is
        one, output.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({NO_ALIAS: True})
            shape, stored = elementwise.output_shape, elementwise.stored
            pixels, channels = elementwise.pixels, stored or elementwise.channels
            read = (1, *pixels.in_memory(shape[1], shape[2], channels))
            x = T.arg("x", T.buffer(read, elementwise.dtype))
            operands = epilogue_operands(elementwise.epilogue, shape, shape[3:], elementwise.dtype)
            table = T.arg("channels", T.buffer(shape[3:], "int32")) if stored else None
            out = T.arg("out", T.buffer(shape, elementwise.dtype))
            with T.grid(elementwise.height * elementwise.width, elementwise.channels) as loops:
                with T.sblock(OUTPUT):
                    p, c = axes("SS", "p c", loops)
                    columns = elementwise.width
                    at = (0, tirx.floordiv(p, columns), tirx.floormod(p, columns), c)
                    channel = c if table is None else table[c]
                    source = (0, *pixels.at(at[1], at[2], channel, channels))
                    value = apply_steps(elementwise.epilogue, operands, x[source], at)
                    T.buffer_store(out, value, list(at))
    return builder.get()


def elementwise_form(core: Core) -> Form:
    """Give the form of the kernel: pixel after pixel, vectors of its channels."""

    def apply(schedule: Schedule, choose: Choose) -> None:
        _, channels = schedule.get_loops(schedule.get_sblock(OUTPUT))
        extent, most = int(schedule.get(channels).extent), VECTORS_IN_STEP * core.lanes
        whole = [d for d in divisors(extent, most) if d % core.lanes == 0]
        longest = max(whole) if whole else extent if extent <= most else max(divisors(extent, most))
        schedule.vectorize(schedule.split(channels, [None, longest])[1])

    return apply
