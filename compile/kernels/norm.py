"""Layer norm: each row less its mean, over its spread, times a weight, plus a bias."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.blocks import OUTPUT, axes, written
from shuffledeploy.compiler.kernels.row_blocks import count_blocks, row_of, rows_of_block
from shuffledeploy.compiler.kernels.row_reductions import numbers_of_rows, reduced_rows


@dataclasses.dataclass(frozen=True)
class Norm:
    """What one layer norm computes.

    Attributes
    ----------
    rows, channels : int
        Of input and output; each row has a mean and a spread of its own.
    epsilon : float
        Added to the variance.
    lanes : int
        Floats in a vector, of which the channels are a whole number.
    """

    rows: int
    channels: int
    epsilon: float
    lanes: int

    @property
    def block(self) -> int:
        """Rows of a block: while the sums of one row wait for each other, others go on."""
        return rows_of_block(self.rows)


def primitive_function(norm: Norm) -> tirx.PrimFunc:
    """Write the kernel as an unscheduled TIR function.

    Returns
    -------
    tirx.PrimFunc
        Parameters: input ``(rows, channels)``, weight and bias ``(channels,)``, output.
    """
    return written(lambda: _body(norm))


def _body(norm: Norm) -> None:
    x = T.arg("x", T.buffer((norm.rows, norm.channels), FLOAT))
    weight = T.arg("weight", T.buffer((norm.channels,), FLOAT))
    bias = T.arg("bias", T.buffer((norm.channels,), FLOAT))
    out = T.arg("out", T.buffer((norm.rows, norm.channels), FLOAT))
    rows = (count_blocks(norm.rows, norm.block), norm.block)
    columns = (norm.channels // norm.lanes, norm.lanes)
    inverse, epsilon = T.float32(1 / norm.channels), T.float32(norm.epsilon)

    def element(i: Any, r: Any, c: Any) -> Any:
        return x[row_of(norm.rows, norm.block, i, r), c]

    def squared(i: Any, r: Any, c: Any) -> Any:
        distance = element(i, r, c) - mean[i, r]
        return distance * distance

    def variance(i: Any, r: Any) -> Any:
        return squares[i, r] * inverse

    total = reduced_rows("sum", rows, columns, element, 0.0, operator.add)
    mean = numbers_of_rows("mean", rows, lambda i, r: total[i, r] * inverse)
    squares = reduced_rows("squares", rows, columns, squared, 0.0, operator.add)
    factor = numbers_of_rows(
        "factor", rows, lambda i, r: T.float32(1) / tirx.sqrt(variance(i, r) + epsilon)
    )
    with T.grid(*rows, norm.channels) as loops:
        with T.sblock(OUTPUT):
            i, r, c = axes("SSS", "i r c", loops)
            normal = (element(i, r, c) - mean[i, r]) * factor[i, r]
            place = [row_of(norm.rows, norm.block, i, r), c]
            T.buffer_store(out, normal * weight[c] + bias[c], place)
