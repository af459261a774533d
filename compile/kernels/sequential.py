"""Kernels that have to go in order: running sums and products, sorting, writes where an index says.

TVM's own call functions of its runtime, which a network without a runtime has not, or share their
loops out to threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.kernels.blocks import written

Shape = tuple[int, ...]


def running(shape: Shape, axis: int, source: str, dtype: str, *, product: bool) -> tirx.PrimFunc:
    """Write a kernel of running sums, or products, along an axis.

    Parameters
    ----------
    shape : tuple of int
        Of input and output.
    axis : int
        Counted from the first.
    source, dtype : str
        Types of input and output.
    product : bool
        Whether elements are multiplied.

    Returns
    -------
    tirx.PrimFunc
        Parameters: input, output.
    """
    outer, extent, inner = _around(shape, axis)

    def body() -> None:
        x = T.arg("x", T.buffer((outer, extent, inner), source))
        out = T.arg("out", T.buffer((outer, extent, inner), dtype))
        with T.sblock("running"):
            with T.serial(0, outer) as o, T.serial(0, extent) as k, T.serial(0, inner) as i:
                before = out[o, tirx.max(k - 1, 0), i]
                value = x[o, k, i].astype(dtype)
                joined = before * value if product else before + value
                T.buffer_store(out, tirx.if_then_else(k > 0, joined, value), [o, k, i])

    return written(body)


def sorting(shape: Shape, axis: int, source: str, dtype: str, *, descending: bool) -> tirx.PrimFunc:
    """Write a kernel that gives the order of elements along an axis; equal ones keep theirs.

    It merges runs of 1, 2, 4... elements, between the two rows of a scratch tensor. NaN counts as
    the largest, as in PyTorch.

    Parameters
    ----------
    shape : tuple of int
        Of input and output.
    axis : int
        Counted from the first.
    source, dtype : str
        Types of input and output.
    descending : bool
        Whether the largest comes first.

    Returns
    -------
    tirx.PrimFunc
        Parameters: input, output, and a scratch tensor of shape (2, extent) and type int32.
    """
    outer, extent, inner = _around(shape, axis)
    passes = max(1, math.ceil(math.log2(extent)))

    def body() -> None:
        x = T.arg("x", T.buffer((outer, extent, inner), source))
        out = T.arg("out", T.buffer((outer, extent, inner), dtype))
        runs = T.arg("runs", T.buffer((2, extent), "int32"))
        with T.sblock("sorting"):
            heads = T.sblock_alloc_buffer((3,), "int32", scope="local")
            with T.serial(0, outer) as o, T.serial(0, inner) as i:
                with T.serial(0, extent) as k:
                    T.buffer_store(runs, k, [0, k])
                with T.serial(0, passes) as turn, T.serial(0, extent) as k:
                    _merge_step(
                        lambda place: x[o, place, i], runs, heads, turn, k, extent, descending
                    )
                with T.serial(0, extent) as k:
                    T.buffer_store(out, runs[passes % 2, k].astype(dtype), [o, k, i])

    return written(body)


def scattering(
    data: Shape, index: Shape, axis: int, types: tuple[str, str], reduction: str
) -> tirx.PrimFunc:
    """Write a kernel that writes elements where an index along an axis says.

    Parameters
    ----------
    data, index : tuple of int
        Shapes of the tensor that is written over, and of the index and what is written.
    axis : int
        Counted from the first.
    types : tuple of str
        Of the data and of the index.
    reduction : str
        ``update``, ``add`` or ``mul``.

    Returns
    -------
    tirx.PrimFunc
        Parameters: data, index, what is written, output. The index is within the axis.
    """
    outer, inner = math.prod(data), math.prod(index)

    def body() -> None:
        x = T.arg("x", T.buffer(data, types[0]))
        places = T.arg("places", T.buffer(index, types[1]))
        added = T.arg("added", T.buffer(index, types[0]))
        out = T.arg("out", T.buffer(data, types[0]))
        with T.sblock("scattering"):
            with T.serial(0, outer) as flat:
                at = _coordinates(flat, data)
                T.buffer_store(out, x[tuple(at)], at)
            with T.serial(0, inner) as flat:
                source = _coordinates(flat, index)
                place = places[tuple(source)].astype("int32")
                at = [*source[:axis], place, *source[axis + 1 :]]
                old, new = out[tuple(at)], added[tuple(source)]
                joined = {"update": new, "add": old + new, "mul": old * new}[reduction]
                T.buffer_store(out, joined, at)

    return written(body)


def _coordinates(flat: Any, shape: Shape) -> list[Any]:
    """Tell the place of an element by its number in memory."""
    inside = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return [flat // step % extent for step, extent in zip(inside, shape, strict=True)]


def _merge_step(
    element: Callable[[Any], Any], runs: Any, heads: Any, turn: Any, k: Any, extent: int,
    descending: bool,
) -> None:  # fmt: skip
    """Take the next element of two neighbouring runs, whose heads are kept."""
    width = tirx.shift_left(tirx.const(1, "int32"), turn)
    start = tirx.floordiv(k, width * 2) * width * 2
    middle, end = tirx.min(start + width, extent), tirx.min(start + width * 2, extent)
    here = turn % 2
    T.buffer_store(heads, tirx.if_then_else(k == start, start, heads[0]), [0])
    T.buffer_store(heads, tirx.if_then_else(k == start, middle, heads[1]), [1])
    left, right = heads[0], heads[1]
    first = runs[here, tirx.min(left, extent - 1)]
    second = runs[here, tirx.min(right, extent - 1)]
    comes_first = _before(element(second), element(first), descending)
    takes_left = tirx.any(right >= end, tirx.all(left < middle, tirx.Not(comes_first)))
    T.buffer_store(heads, takes_left.astype("int32"), [2])
    T.buffer_store(runs, tirx.if_then_else(heads[2] > 0, first, second), [1 - here, k])
    T.buffer_store(heads, left + heads[2], [0])
    T.buffer_store(heads, right + 1 - heads[2], [1])


def _before(a: Any, b: Any, descending: bool) -> Any:
    """Whether one element has to stand before another."""
    small, large = (b, a) if descending else (a, b)
    before = small < large
    if "float" not in str(a.ty.dtype):
        return before
    return tirx.any(before, tirx.all(tirx.isnan(large), tirx.Not(tirx.isnan(small))))


def _around(shape: Shape, axis: int) -> tuple[int, int, int]:
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
