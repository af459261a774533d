"""Concatenation along channels, with what follows it: each part goes to its slice in one pass."""

from __future__ import annotations

import dataclasses

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.kernels.blocks import (
    EpilogueStep,
    apply_steps,
    axes,
    epilogue_operands,
    written,
)
from shuffledeploy.compiler.kernels.pixel_order import AS_THEY_LIE, PixelOrder

PART = "part"


@dataclasses.dataclass(frozen=True)
class Part:
    """One input of a concatenation.

    Attributes
    ----------
    stored : int
        Channels of each pixel in memory.
    channels : int
        Channels read from it.
    gathered : bool
        Whether a table says which channels those are.
    pixels : PixelOrder
        Where its pixels stand in memory.
    """

    stored: int
    channels: int
    gathered: bool
    pixels: PixelOrder = AS_THEY_LIE


@dataclasses.dataclass(frozen=True)
class Joined:
    """What one concatenation computes; activations are NHWC with N = 1.

    Attributes
    ----------
    height, width : int
        Of every part.
    parts : tuple of Part
        What is joined.
    epilogue : tuple of EpilogueStep
        What follows, in order.
    dtype : str
        Of the elements. Of int8 they are joined as they are, but for a ReLU.
    written : str
        Type of the output, which the epilogue's last step gives; empty where it is `dtype`.
    """

    height: int
    width: int
    parts: tuple[Part, ...]
    epilogue: tuple[EpilogueStep, ...]
    dtype: str = "float32"
    written: str = ""

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output, NHWC."""
        return (1, self.height, self.width, sum(part.channels for part in self.parts))


def primitive_function(joined: Joined) -> tirx.PrimFunc:
    """Write the kernel as an unscheduled TIR function.

    Returns
    -------
    tirx.PrimFunc
        Parameters: the parts, the epilogue's operands in order, the tables of channels of the
        gathered parts, output.
    """
    return written(lambda: _body(joined))


def _body(joined: Joined) -> None:
    height, width = joined.height, joined.width
    inputs = [
        T.arg(
            f"part_{i}",
            T.buffer((1, *part.pixels.in_memory(height, width, part.stored)), joined.dtype),
        )
        for i, part in enumerate(joined.parts)
    ]
    operands = epilogue_operands(
        joined.epilogue, joined.output_shape, joined.output_shape[3:], joined.dtype
    )
    tables = [
        T.arg(f"channels_{i}", T.buffer((part.channels,), "int32")) if part.gathered else None
        for i, part in enumerate(joined.parts)
    ]
    out = T.arg("out", T.buffer(joined.output_shape, joined.written or joined.dtype))
    start = 0
    for i, (x, part, table) in enumerate(zip(inputs, joined.parts, tables, strict=True)):
        with T.grid(height * width, part.channels) as loops:
            with T.sblock(f"{PART}_{i}"):
                p, c = axes("SS", "p c", loops)
                row, column = tirx.floordiv(p, width), tirx.floormod(p, width)
                source = c if table is None else table[c]
                at = (0, row, column, c + start)
                read = x[(0, *part.pixels.at(row, column, source, part.stored))]
                value = apply_steps(joined.epilogue, operands, read, at)
                T.buffer_store(out, value, list(at))
        start += part.channels
