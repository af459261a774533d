"""Layer norm: each row less its mean, over its spread, times a weight, plus a bias."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.ir.tvm_edges import NO_ALIAS
from shuffledeploy.compiler.kernels.blocks import OUTPUT, axes, named
from shuffledeploy.compiler.kernels.row_blocks import count_blocks, row_of, rows_of_block
from shuffledeploy.compiler.kernels.tiling import (
    Choose,
    Core,
    Form,
    divisors,
    extents_of,
    reduce_by_lanes,
    reduce_lanes,
)

# Blocks of the kernel before its output, in order: sums by lane and in whole, of elements and of
# their squared distances from the mean.
_SUM_OF_LANES, _SUM, _MEAN = "sum_of_lanes", "sum", "mean"
_SQUARES_OF_LANES, _SQUARES, _FACTOR = "squares_of_lanes", "squares", "factor"
_BEFORE = (_SUM_OF_LANES, _SUM, _MEAN, _SQUARES_OF_LANES, _SQUARES, _FACTOR)
# Vectors that are written out, at most.
_MOST_VECTORS = 8


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
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({NO_ALIAS: True})
            _body(norm)
    return builder.get()


def _body(norm: Norm) -> None:
    x = T.arg("x", T.buffer((norm.rows, norm.channels), FLOAT))
    weight = T.arg("weight", T.buffer((norm.channels,), FLOAT))
    bias = T.arg("bias", T.buffer((norm.channels,), FLOAT))
    out = T.arg("out", T.buffer((norm.rows, norm.channels), FLOAT))
    rows = (count_blocks(norm.rows, norm.block), norm.block)
    inverse, epsilon = T.float32(1 / norm.channels), T.float32(norm.epsilon)

    def element(i: Any, r: Any, c: Any) -> Any:
        return x[row_of(norm.rows, norm.block, i, r), c]

    total = _summed(norm, (_SUM_OF_LANES, _SUM), element)
    mean = _of_rows(_MEAN, rows, lambda i, r: total[i, r] * inverse)

    def squared(i: Any, r: Any, c: Any) -> Any:
        distance = element(i, r, c) - mean[i, r]
        return distance * distance

    squares = _summed(norm, (_SQUARES_OF_LANES, _SQUARES), squared)
    factor = _of_rows(
        _FACTOR, rows, lambda i, r: T.float32(1) / tirx.sqrt(squares[i, r] * inverse + epsilon)
    )
    with T.grid(*rows, norm.channels) as loops:
        with T.sblock(OUTPUT):
            i, r, c = axes("SSS", "i r c", loops)
            normal = (element(i, r, c) - mean[i, r]) * factor[i, r]
            place = [row_of(norm.rows, norm.block, i, r), c]
            T.buffer_store(out, normal * weight[c] + bias[c], place)


def _summed(norm: Norm, names: tuple[str, str], element: Callable[[Any, Any, Any], Any]) -> Any:
    """Sum up each row, lane by lane first."""
    rows = (count_blocks(norm.rows, norm.block), norm.block)
    lanes = named(names[0], T.sblock_alloc_buffer((*rows, norm.lanes), FLOAT))
    with T.grid(*rows, norm.lanes, norm.channels // norm.lanes) as loops:
        with T.sblock(names[0]):
            i, r, lane, v = axes("SSSR", "i r lane v", loops)
            with T.init():
                T.buffer_store(lanes, T.float32(0), [i, r, lane])
            added = lanes[i, r, lane] + element(i, r, v * norm.lanes + lane)
            T.buffer_store(lanes, added, [i, r, lane])
    whole = named(names[1], T.sblock_alloc_buffer(rows, FLOAT))
    with T.grid(*rows, norm.lanes) as loops:
        with T.sblock(names[1]):
            i, r, lane = axes("SSR", "i r lane", loops)
            with T.init():
                T.buffer_store(whole, T.float32(0), [i, r])
            T.buffer_store(whole, whole[i, r] + lanes[i, r, lane], [i, r])
    return whole


def _of_rows(name: str, rows: tuple[int, int], value: Callable[[Any, Any], Any]) -> Any:
    """Compute a number of each row."""
    numbers = named(name, T.sblock_alloc_buffer(rows, FLOAT))
    with T.grid(*rows) as loops:
        with T.sblock(name):
            i, r = axes("SS", "i r", loops)
            T.buffer_store(numbers, value(i, r), [i, r])
    return numbers


def norm_form(core: Core) -> Form:
    """Give the form of a layer norm: block after block of rows, vectors of their channels."""

    def apply(schedule: Schedule, choose: Choose) -> None:
        get = schedule.get_sblock
        lanes = extents_of(schedule, get(_SUM))[-1]
        block, _, channel = schedule.get_loops(get(OUTPUT))
        vectors = divisors(int(schedule.get(channel).extent) // lanes, _MOST_VECTORS)
        _, vector, lane = schedule.split(channel, [None, choose(vectors, vectors[-1]), lanes])
        schedule.vectorize(lane)
        schedule.unroll(vector)
        for name in reversed(_BEFORE):
            schedule.compute_at(get(name), block, preserve_unit_loops=True)
        for name in (_SUM_OF_LANES, _SQUARES_OF_LANES):
            reduce_by_lanes(schedule, get(name))
        for name in (_SUM, _SQUARES):
            reduce_lanes(schedule, get(name))

    return apply
