"""Softmax of each row: powers of e of its elements, over their sum."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.blocks import OUTPUT, axes, written
from shuffledeploy.compiler.kernels.row_blocks import count_blocks, row_of, rows_of_block
from shuffledeploy.compiler.kernels.row_reductions import numbers_of_rows, reduced_rows

#: Blocks before the output; two more reduce lanes.
LARGEST, POWERS, SUM, INVERSE = "largest", "powers", "sum", "inverse"
#: Of float32.
LOWEST = -3.4028234e38


@dataclasses.dataclass(frozen=True)
class Softmax:
    """What one softmax computes.

    Attributes
    ----------
    rows, channels : int
        Of input and output.
    lanes : int
        Floats in a vector, of which the channels are a whole number.
    """

    rows: int
    channels: int
    lanes: int


def primitive_function(softmax: Softmax) -> tirx.PrimFunc:
    """Write the kernel as an unscheduled TIR function.

    Returns
    -------
    tirx.PrimFunc
        Parameters: input and output, ``(rows, channels)``.
    """
    return written(lambda: _body(softmax))


def _body(softmax: Softmax) -> None:
    x = T.arg("x", T.buffer((softmax.rows, softmax.channels), FLOAT))
    out = T.arg("out", T.buffer((softmax.rows, softmax.channels), FLOAT))
    block = rows_of_block(softmax.rows)
    rows = (count_blocks(softmax.rows, block), block)
    columns = (softmax.channels // softmax.lanes, softmax.lanes)

    def element(i: Any, r: Any, c: Any) -> Any:
        return x[row_of(softmax.rows, block, i, r), c]

    largest = reduced_rows(LARGEST, rows, columns, element, LOWEST, tirx.max)

    def power(i: Any, r: Any, c: Any) -> Any:
        # Powers of two cost less than those of e.
        return tirx.exp2((element(i, r, c) - largest[i, r]) * T.float32(math.log2(math.e)))

    powers = numbers_of_rows(POWERS, (*rows, softmax.channels), power)
    sums = reduced_rows(SUM, rows, columns, lambda i, r, c: powers[i, r, c], 0.0, operator.add)
    inverses = numbers_of_rows(INVERSE, rows, lambda i, r: T.float32(1) / sums[i, r])
    with T.grid(*rows, softmax.channels) as loops:
        with T.sblock(OUTPUT):
            i, r, c = axes("SSS", "i r c", loops)
            place = [row_of(softmax.rows, block, i, r), c]
            T.buffer_store(out, powers[i, r, c] * inverses[i, r], place)
