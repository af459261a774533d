"""Schedule forms of attention: register tiles of scores, and of sums of values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.attributes import LANES
from shuffledeploy.compiler.ir.tir import LOCAL
from shuffledeploy.compiler.kernels import attention as blocks
from shuffledeploy.compiler.kernels.tiling import (
    Choose,
    Core,
    Form,
    divisors,
    extents_of,
    reduce_by_lanes,
    reduce_lanes,
    tile_in_registers,
)

# Forms at most, and register tiles of each of the two products that they are made of.
_MOST_FORMS, _MOST_WIDTHS = 6, 3
# Rows that a form leaves to choose from.
_MOST_HEIGHTS = 4
# Chains of additions that hide their latency.
_FEWEST_SUMS = 8
# What a vector costs, beside an element that is copied to all lanes: it comes from the second
# level of cache.
_VECTOR = 2
# Elements of a sum that are written out, the default first.
_STEPS = (2, 1, 4)


def attention_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """List the forms of an attention, the one with the fewest loads a multiply-add first.

    For each batch keys and values are packed; then blocks of rows follow one another. In a block
    all scores are computed tile by tile, then their softmax, then the sums of values.
    """
    probe = Schedule(tvm.IRModule({"main": function}))
    lanes = int(function.attrs[LANES])
    *_, rows, keys, _ = extents_of(probe, probe.get_sblock(blocks.TOTAL))
    *_, padded, _ = extents_of(probe, probe.get_sblock(blocks.WEIGHTED))
    outputs = extents_of(probe, probe.get_sblock(blocks.WRITTEN))[-1]
    # Outputs beside whole vectors belong to the one tile that has them all.
    widths = divisors(padded // lanes, core.registers) if outputs == padded else [padded // lanes]
    of_scores = _tiles(rows, divisors(keys // lanes, core.registers), core)
    of_values = _tiles(rows, widths, core)
    pairs = sorted(
        itertools.product(enumerate(of_scores), enumerate(of_values)),
        key=lambda pair: pair[0][0] + pair[1][0],
    )
    return [_form(lanes, scores, values) for (_, scores), (_, values) in pairs[:_MOST_FORMS]]


#: Vectors of a tile, and the heights that fit it, the best first.
_Tiles = tuple[int, list[int]]


def _tiles(rows: int, widths: Sequence[int], core: Core) -> list[_Tiles]:
    """List the widths of register tiles, each with its heights, the cheapest first."""

    def cost(height: int, width: int) -> float:
        sums = height * width
        return (height + _VECTOR * width + max(0, _FEWEST_SUMS - sums)) / sums

    found: list[tuple[float, _Tiles]] = []
    for width in widths:
        fitting = [m for m in divisors(rows, rows) if (m + 1) * width + 1 <= core.registers]
        heights = sorted(fitting, key=lambda m: cost(m, width))[:_MOST_HEIGHTS]
        if heights:
            found.append((cost(heights[0], width), (width, heights)))
    # Where no tile fits, the sums of one row go through memory.
    ordered = [tiles for _, tiles in sorted(found, key=lambda pair: pair[0])]
    return ordered[:_MOST_WIDTHS] or [(min(widths), [1])]


def _form(lanes: int, of_scores: _Tiles, of_values: _Tiles) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        get = schedule.get_sblock
        _, batch, block, *values = _in_tiles(schedule, blocks.WEIGHTED, lanes, of_values, choose)
        schedule.reverse_compute_at(get(blocks.WRITTEN), values[1], preserve_unit_loops=True)
        for name in reversed(blocks.BLOCKS_OF_ROWS):
            schedule.compute_at(get(name), block, preserve_unit_loops=True)
        for name in (blocks.VALUES, blocks.KEYS):
            schedule.compute_at(get(name), batch, preserve_unit_loops=True)
        *_, scores, depth = _in_tiles(schedule, blocks.TOTAL, lanes, of_scores, choose)
        schedule.reverse_compute_at(get(blocks.SCORES), scores, preserve_unit_loops=True)
        for name in (blocks.WRITTEN, blocks.SCORES):
            *_, row, column = schedule.get_loops(get(name))
            _vectorized(schedule, column, lanes)
            schedule.unroll(row)
        for name in (blocks.KEYS, blocks.VALUES, blocks.POWERS):
            *_, column = schedule.get_loops(get(name))
            schedule.vectorize(schedule.split(column, [None, lanes])[1])
        schedule.vectorize(schedule.get_loops(get(blocks.SHARES))[-1])
        for name in (blocks.LARGEST_OF_LANES, blocks.SUM_OF_LANES):
            reduce_by_lanes(schedule, get(name))
        for name in (blocks.LARGEST, blocks.SUM):
            reduce_lanes(schedule, get(name))
        for name, loop in ((blocks.TOTAL, depth), (blocks.WEIGHTED, values[2])):
            # Else TVM would let a tile share the memory of a block's rows.
            schedule.set_scope(get(name), 0, LOCAL)
            tile_in_registers(schedule, schedule.decompose_reduction(get(name), loop))

    return apply


def _in_tiles(
    schedule: Schedule, name: str, lanes: int, tiles: _Tiles, choose: Choose
) -> list[Any]:
    """Compute a product's sums in register tiles; give the loops outside of a step's products."""
    block, (width, heights) = schedule.get_sblock(name), tiles
    *outer, row, column, depth = schedule.get_loops(block)
    row_out, row_in = schedule.split(row, [None, choose(heights, heights[0])])
    column_out, vector, lane = schedule.split(column, [None, width, lanes])
    steps = [s for s in _STEPS if int(schedule.get(depth).extent) % s == 0]
    depth_out, depth_in = schedule.split(depth, [None, choose(steps, steps[0])])
    # All rows of a block read a column of tiles before the next.
    schedule.reorder(column_out, row_out, depth_out, depth_in, row_in, vector, lane)
    schedule.vectorize(lane)
    for loop in (depth_in, row_in, vector):
        schedule.unroll(loop)
    return [*outer, column_out, row_out, depth_out]


def _vectorized(schedule: Schedule, column: Any, lanes: int) -> None:
    """Write whole vectors; a rest is parted from them later (`cut_odd_vectors`)."""
    if int(schedule.get(column).extent) % lanes:
        schedule.vectorize(column)
        return
    vector, lane = schedule.split(column, [None, lanes])
    schedule.vectorize(lane)
    schedule.unroll(vector)
