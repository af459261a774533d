"""Register tiles of products of two tensors that the network computes.

A tile has some rows of the left operand by some vectors of columns of the right one, which was
packed. All rows of a block go through a column of tiles before the next::

    for column of tiles, for tile of rows:
        for step of the sum:
            total[rows, vectors] += left[rows] * packed[vectors]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.tir import LOCAL
from shuffledeploy.compiler.kernels.tiling import Choose, Core, divisors, tile_in_registers

# Widths of tiles, and heights for each, that a form leaves to choose from.
_MOST_WIDTHS, _MOST_HEIGHTS = 3, 4
# Vectors of a tile, at most: no larger number of vectors of columns is a prime.
_WIDEST_TILE = 8
# Chains of additions that hide their latency.
_FEWEST_SUMS = 8
# What a vector costs, beside an element that is copied to all lanes: it comes from the second
# level of cache.
_VECTOR = 2
# Elements of a sum that are written out, the default first.
_STEPS = (2, 1, 4)


@dataclasses.dataclass(frozen=True)
class RegisterTiles:
    """Tiles of so many vectors.

    Attributes
    ----------
    width : int
        Vectors of columns.
    heights : list of int
        Rows, the best first; each divides the rows of a block.
    """

    width: int
    heights: list[int]


@dataclasses.dataclass(frozen=True)
class TileLoops:
    """Loops of a product that is computed in tiles.

    Attributes
    ----------
    outer : list
        Over the batch, outer and inner, and over blocks of rows.
    tile : LoopRV
        The innermost from one tile to the next.
    depth : LoopRV
        Over steps of the sums.
    """

    outer: list[Any]
    tile: Any
    depth: Any


def padded_columns(columns: int, lanes: int) -> int:
    """Count columns with those that fill the last vector, and the last register tile."""
    vectors = -(-columns // lanes)
    while vectors > _WIDEST_TILE and all(vectors % n for n in range(2, _WIDEST_TILE + 1)):
        vectors += 1
    return vectors * lanes


def register_tiles(rows: int, widths: Sequence[int], core: Core) -> list[RegisterTiles]:
    """List register tiles that fit a core, those of the fewest loads a multiply-add first.

    Parameters
    ----------
    rows : int
        Of a block.
    widths : sequence of int
        Vectors that a tile may have.
    core : Core
        With its registers.
    """

    def cost(height: int, width: int) -> float:
        sums = height * width
        return (height + _VECTOR * width + max(0, _FEWEST_SUMS - sums)) / sums

    found: list[tuple[float, RegisterTiles]] = []
    for width in widths:
        fitting = [m for m in divisors(rows, rows) if (m + 1) * width + 1 <= core.registers]
        heights = sorted(fitting, key=lambda m: cost(m, width))[:_MOST_HEIGHTS]
        if heights:
            found.append((cost(heights[0], width), RegisterTiles(width, heights)))
    ordered = [tiles for _, tiles in sorted(found, key=lambda pair: pair[0])]
    # Where no tile fits, the sums of one row go through memory.
    return ordered[:_MOST_WIDTHS] or [RegisterTiles(min(widths), [1])]


def compute_in_tiles(
    schedule: Schedule, block: Any, lanes: int, tiles: RegisterTiles, choose: Choose
) -> TileLoops:
    """Compute sums in register tiles; their beginning is left where it is.

    The last three loops of the block are over rows of a block, columns, and terms of the sum.
    """
    *outer, row, column, depth = schedule.get_loops(block)
    row_out, row_in = schedule.split(row, [None, choose(tiles.heights, tiles.heights[0])])
    column_out, vector, lane = schedule.split(column, [None, tiles.width, lanes])
    steps = [s for s in _STEPS if int(schedule.get(depth).extent) % s == 0]
    depth_out, depth_in = schedule.split(depth, [None, choose(steps, steps[0])])
    schedule.reorder(column_out, row_out, depth_out, depth_in, row_in, vector, lane)
    schedule.vectorize(lane)
    for loop in (depth_in, row_in, vector):
        schedule.unroll(loop)
    return TileLoops(outer, row_out, depth_out)


def begin_in_registers(schedule: Schedule, block: Any, loops: TileLoops) -> None:
    """Let the sums of a tile begin, and stand, in registers; nothing is computed at it after."""
    # Else TVM would let a tile share the memory of a block's rows.
    schedule.set_scope(block, 0, LOCAL)
    tile_in_registers(schedule, schedule.decompose_reduction(block, loops.depth))


def write_by_vectors(schedule: Schedule, block: Any, lanes: int) -> None:
    """Write a tile row by row in whole vectors; a rest is parted from them by `cut_odd_vectors`."""
    *_, row, column = schedule.get_loops(block)
    schedule.unroll(row)
    if int(schedule.get(column).extent) % lanes:
        schedule.vectorize(column)
        return
    vector, lane = schedule.split(column, [None, lanes])
    schedule.vectorize(lane)
    schedule.unroll(vector)


def copy_by_vectors(schedule: Schedule, block: Any, lanes: int) -> None:
    """Write a whole number of vectors, one a step."""
    *_, column = schedule.get_loops(block)
    schedule.vectorize(schedule.split(column, [None, lanes])[1])
