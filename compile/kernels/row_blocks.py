"""Rows that a kernel goes through by blocks, each in its own part of a cache."""

from __future__ import annotations

from typing import Any

from tvm import tirx

# Rows of a block, at most, and rows of a register tile.
MOST_ROWS = 32
MOST_ROWS_IN_TILE = 12


def rows_of_block(rows: int) -> int:
    """Choose the rows of a block: few are computed twice, and register tiles fill it.

    The last block overlaps the one before where blocks do not fill all rows.
    """
    tiles = range(1, min(rows, MOST_ROWS_IN_TILE) + 1)
    found = [tile * times for tile in tiles for times in range(1, MOST_ROWS // tile + 1)]

    def cost(block: int) -> tuple[float, int]:
        tile = max(t for t in tiles if block % t == 0)
        # Loads of a row and of a vector, of which tiles of few rows have more each.
        loads = 1 + 1 / tile
        return count_blocks(rows, block) * block * loads, -block

    return min((block for block in found if block <= rows), key=cost)


def count_blocks(rows: int, block: int) -> int:
    """Count the blocks that all rows take."""
    return -(-rows // block)


def row_of(rows: int, block: int, number: Any, row: Any) -> Any:
    """Write which of all rows a row of a block is, the blocks counted through."""
    if rows % block == 0:
        return number * block + row
    return tirx.min(number * block, rows - block) + row
