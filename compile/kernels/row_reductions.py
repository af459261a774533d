"""What kernels compute of each row: a number by lanes first, and numbers that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.blocks import axes, named

#: Ending of the names of blocks that reduce each lane for itself.
OF_LANES = "_of_lanes"


def reduced_rows(
    name: str,
    rows: Sequence[int],
    columns: tuple[int, int],
    element: Callable[..., Any],
    start: float,
    combine: Callable[[Any, Any], Any],
) -> Any:
    """Write the two blocks that reduce each row to a number.

    Parameters
    ----------
    name : str
        Of the second block, and of its buffer.
    rows : sequence of int
        Extents of the axes that count rows.
    columns : tuple of int
        Vectors of a row, and lanes of each.
    element : Callable
        Gives an element of a row by the indices of the row and its column.
    start : float
        What changes no number.
    combine : Callable
        Makes one number of two.

    Returns
    -------
    Buffer
        Of `rows`.
    """
    vectors, lanes = columns
    kinds, names = "S" * len(rows), " ".join(f"r{axis}" for axis in range(len(rows)))
    of_lanes = named(name + OF_LANES, T.sblock_alloc_buffer((*rows, lanes), FLOAT))
    with T.grid(*rows, lanes, vectors) as loops:
        with T.sblock(name + OF_LANES):
            *at, lane, v = axes(kinds + "SR", names + " lane v", loops)
            with T.init():
                T.buffer_store(of_lanes, T.float32(start), [*at, lane])
            read = element(*at, v * lanes + lane)
            T.buffer_store(of_lanes, combine(of_lanes[(*at, lane)], read), [*at, lane])
    whole = named(name, T.sblock_alloc_buffer(rows, FLOAT))
    with T.grid(*rows, lanes) as loops:
        with T.sblock(name):
            *at, lane = axes(kinds + "R", names + " lane", loops)
            with T.init():
                T.buffer_store(whole, T.float32(start), at)
            T.buffer_store(whole, combine(whole[tuple(at)], of_lanes[(*at, lane)]), at)
    return whole


def numbers_of_rows(name: str, rows: Sequence[int], value: Callable[..., Any]) -> Any:
    """Write the block that computes a number of each row, by the indices of the row.

    With an axis of columns behind those of rows, it is a number of each element.
    """
    numbers = named(name, T.sblock_alloc_buffer(rows, FLOAT))
    names = " ".join(f"r{axis}" for axis in range(len(rows)))
    with T.grid(*rows) as loops:
        with T.sblock(name):
            at = axes("S" * len(rows), names, loops)
            T.buffer_store(numbers, value(*at), at)
    return numbers
