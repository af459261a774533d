"""Operands that a kernel reads, and writes, where strides say."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.blocks import axes, named


@dataclasses.dataclass(frozen=True)
class Strided:
    """Where a tensor's elements stand in the memory of another one.

    Attributes
    ----------
    size : int
        Elements of the other tensor.
    offset : int
        Of the first element.
    strides : tuple of int
        From one outer batch, inner batch, row and column to the next.
    """

    size: int
    offset: int
    strides: tuple[int, int, int, int]

    def at(self, *indices: Any) -> Any:
        """Give the place of an element in memory; extents of one have stride 0."""
        place: Any = tirx.IntImm("int32", self.offset)
        for index, stride in zip(indices, self.strides, strict=True):
            if stride:
                place = place + index * stride
        return place

    @property
    def transposed(self) -> Strided:
        """The same with rows in the places of columns."""
        outer, inner, row, column = self.strides
        return dataclasses.replace(self, strides=(outer, inner, column, row))


def packed(name: str, memory: Any, operand: Strided, extents: tuple[int, ...], filled: int) -> Any:
    """Write the block that copies an operand of each batch; columns from `filled` on are zero.

    Parameters
    ----------
    name : str
        Of the block, and of its buffer.
    memory : Buffer
        What the operand stands in.
    operand : Strided
        Where.
    extents : tuple of int
        Of the buffer: two batch axes, rows, columns.
    filled : int
        Columns of the operand.
    """
    copy = named(name, T.sblock_alloc_buffer(extents, FLOAT))
    with T.grid(*extents) as loops:
        with T.sblock(name):
            b, c, row, column = axes("SSSS", "b c row column", loops)
            if filled == extents[3]:
                read = memory[operand.at(b, c, row, column)]
            else:
                nearest = memory[operand.at(b, c, row, tirx.min(column, filled - 1))]
                read = tirx.Select(column < filled, nearest, T.float32(0))
            T.buffer_store(copy, read, [b, c, row, column])
    return copy
