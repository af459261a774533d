"""The sums of a convolution start from the residual that it adds, and the bias comes last.

Before::

    for m, n in tile: total[m, n] = bias[n]             # one load, the others are copies of it
    for k: for m, n in tile: total[m, n] += x[m, k] * weight[k, n]
    for m, n in tile: out[m, n] = relu(total[m, n] + residual[m, n])

After::

    for m, n in tile: total[m, n] = residual[m, n]
    for k: for m, n in tile: total[m, n] += x[m, k] * weight[k, n]
    for m, n in tile: out[m, n] = relu(total[m, n] + bias[n])

Both ways load the residual and add twice. But each sum stands in a register of its own: to start
from a bias, which is the same for all pixels, takes a copy for each vector of sums. A tile of 4
pixels by 5 vectors that adds up 10 products has 200 multiply-adds and 15 such copies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm_ffi import structural_equal, structural_map, structural_walk

from shuffledeploy.compiler.ir.attributes import CONVOLUTION, kind_of
from shuffledeploy.compiler.ir.tir import loads_in, with_values


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Where sums begin and end.

    Attributes
    ----------
    first, last : SBlock
        The block that sets a sum to its bias, and the one that adds the residual to it.
    bias, residual : TensorLoad
        What they read, by each block's own axes.
    """

    first: Any
    last: Any
    bias: Any
    residual: Any


def start_from_residual(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Let sums start from the residual, where vectors of sums are whole.

    Parameters
    ----------
    function : tirx.PrimFunc
        A scheduled kernel. One that adds no residual, or reads its sums otherwise, is given back
        as it is.
    """
    if kind_of(function) != CONVOLUTION:
        return function
    blocks: list[Any] = []
    structural_walk(function.body, (s_tir.SBlock, blocks.append))
    changed = [
        pair
        for block in blocks
        if (sums := _sums_that_start_in(block, blocks))
        for pair in ((sums.first, _started(sums)), (sums.last, _finished(sums)))
    ]
    if not changed:
        return function

    def exchange(block: Any) -> Any:
        return next((new for old, new in changed if old.same_as(block)), block)

    return function.with_body(structural_map(function.body, (s_tir.SBlock, exchange)))


def _sums_that_start_in(first: Any, blocks: Sequence[Any]) -> _Sums | None:
    """Tell how the sums go on that a block sets to their bias; ``None`` where it sets none."""
    start = first.body
    if not isinstance(start, tirx.BufferStore) or not isinstance(start.value, tvm.ir.TensorLoad):
        return None
    readers = [
        block
        for block in blocks
        if isinstance(block.body, tirx.BufferStore)
        and not block.body.buffer.same_as(start.buffer)
        and any(load.source.same_as(start.buffer) for load in loads_in(block.body.value))
    ]
    if len(readers) != 1:
        return None
    (last,) = readers
    # Lanes beyond the outputs of a group have sums, but no residual.
    whole = structural_equal(*([axis.dom for axis in block.iter_vars] for block in (first, last)))
    residual = _added_to(start.buffer, last.body) if whole else None
    return _Sums(first, last, start.value, residual) if residual is not None else None


def _added_to(total: Any, store: Any) -> Any | None:
    """Find what an element of the output's shape is added to a sum, the only one that is read."""
    found: list[Any] = []

    def on_addition(addition: tirx.Add) -> None:
        for one, other in ((addition.a, addition.b), (addition.b, addition.a)):
            if not (isinstance(one, tvm.ir.TensorLoad) and isinstance(other, tvm.ir.TensorLoad)):
                continue
            beside = structural_equal(other.indices, store.indices)
            if beside and one.source.same_as(total):
                found.append(other)

    structural_walk(store.value, (tirx.Add, on_addition))
    reads = sum(load.source.same_as(total) for load in loads_in(store.value))
    return found[0] if len(found) == 1 and reads == 1 else None


def _started(sums: _Sums) -> Any:
    residual = _by_axes_of(sums.first, sums.last, sums.residual)
    return _with_load(sums.first, sums.bias, residual)


def _finished(sums: _Sums) -> Any:
    bias = _by_axes_of(sums.last, sums.first, sums.bias)
    return _with_load(sums.last, sums.residual, bias)


def _by_axes_of(block: Any, other: Any, load: Any) -> Any:
    """Write what another block reads by the axes of a block, which has the same in their order."""
    variables = ([axis.var for axis in one.iter_vars] for one in (other, block))
    return with_values(load, dict(zip(*variables, strict=True)))


def _with_load(block: Any, old: Any, new: Any) -> Any:
    """Let a block read one element in the place of another."""
    body = structural_map(
        block.body, (tvm.ir.TensorLoad, lambda load: new if load.same_as(old) else load)
    )
    ranges = [tvm.ir.Range.from_min_extent(index, 1) for index in new.indices]
    others = [region for region in block.reads if not region.source.same_as(old.source)]
    reads = [*others, tirx.BufferRegion(new.source, ranges)]
    return s_tir.SBlock(
        block.iter_vars, reads, block.writes, block.name_hint, body, block.init,
        block.alloc_buffers, block.match_buffers, block.annotations,
    )  # fmt: skip
