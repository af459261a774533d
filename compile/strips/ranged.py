"""A scheduled kernel that computes some of its pixels: what strips are made of.

Before::

    for group in range(g):
        for tile in range(T): ...                       # m pixels each

After::

    for group in range(g):
        for step in range(last - first): ...            # tile = first + step

Of a kernel that computes several images one is left: it is called for each, its tensors moved.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tvm
import tvm.sym
from tvm import tirx
from tvm_ffi import structural_map, structural_visit

from shuffledeploy.compiler.ir.attributes import INTERNAL, kind_of
from shuffledeploy.compiler.ir.tir import (
    MOST_SMALL,
    SMALL_INDEX,
    as_pointers,
    small_index,
    with_parameters,
    with_values,
)
from shuffledeploy.compiler.ir.tvm_edges import PLAIN_CALLS
from shuffledeploy.compiler.kernels.images import body_of_first, images_of
from shuffledeploy.compiler.passes.tir.last_tile import part_last_tile

# Ranges are given as unsigned 16 bits: their sign needs no proof where an index is divided.
RANGE_TYPE = SMALL_INDEX
MOST_UNITS = MOST_SMALL


@dataclasses.dataclass(frozen=True)
class Ranged:
    """A kernel on a range of its pixels.

    Attributes
    ----------
    function : tirx.PrimFunc
        Takes pointers to the elements of the kernel's tensors, and the first unit and the end; of
        one image.
    unit : int
        Pixels in a unit, in the order of rows; the last may have fewer.
    units : int
        Units in the whole output.
    """

    function: tirx.PrimFunc
    unit: int
    units: int


@dataclasses.dataclass(frozen=True)
class AxisLoop:
    """The outermost loop that moves over an axis of blocks, and by how much in each step."""

    variable: tirx.Var
    step: int


def ranged(
    function: tirx.PrimFunc, output: int = -1, *, small_indices: bool = True
) -> Ranged | None:
    """Let a scheduled kernel compute a range of its pixels; ``None`` where its loops do not allow.

    Parameters
    ----------
    function : tirx.PrimFunc
        A scheduled kernel. Those of `compiler.kernels` have the output's pixels, row after row, as
        first axis of all blocks; others compute whole layers.
    output : int
        Which of its parameters it writes.
    small_indices : bool
        Whether LLVM is to know how large indices can become (`small_index`).
    """
    shape = [int(extent) for extent in function.params[output].shape]
    if not kind_of(function) or len(shape) != 4 or shape[0] != images_of(function):
        return None
    function = function.with_body(body_of_first(function))
    _, height, width, _ = shape
    loops = axis_loops(function, 0, height * width)
    if not loops:
        return None
    unit = math.lcm(*(loop.step for loop in loops))
    whole = height * width % unit == 0
    if whole and unit < width and (height * width // unit > MOST_UNITS or unit == 1):
        unit = math.lcm(unit, width)
    units = -(-height * width // unit)
    if units > MOST_UNITS or not (whole or len(loops) == 1):
        return None
    first, last = (tirx.Var(name, RANGE_TYPE) for name in ("first", "last"))
    body = function.body
    bounds = tirx.Cast("int32", first), tirx.Cast("int32", last)
    if whole:
        for loop in loops:
            start, end = (bound * (unit // loop.step) for bound in bounds)
            # Of buffers between several loops TVM finds out the size where indices are plain sums.
            small = small_indices and len(loops) == 1
            body = over_range(body, loop, start, end - start, small_indices=small)
    else:
        parted = part_last_tile(function, bounds, small_indices=small_indices)
        if parted.same_as(function):
            return None
        body = parted.body
    pointers, views = as_pointers(function)
    result = with_parameters(function, [*pointers, first, last], tirx.SeqStmt([*views, body]))
    marks = {INTERNAL: True, **PLAIN_CALLS}
    return Ranged(result.with_attr(marks), unit, units)


def axis_loops(function: tirx.PrimFunc, axis: int, extent: int) -> list[AxisLoop]:
    """Find the loops that move over an axis of all blocks; none where a block is in no such loop.

    Parameters
    ----------
    function : tirx.PrimFunc
        A scheduled kernel.
    axis : int
        Which of a block's.
    extent : int
        Of that axis.
    """
    around: list[tirx.For] = []
    found: dict[tirx.Var, AxisLoop] = {}
    outside = False

    def on_loop(loop: tirx.For, visitor: Any) -> None:
        around.append(loop)
        visitor.default_visit(loop)
        around.pop()

    def on_block(realize: Any, visitor: Any) -> None:
        nonlocal outside
        if realize.block.iter_vars:
            loop = _first_that_moves(realize.iter_values[axis], around, extent)
            if loop is None:
                outside = True
            else:
                found[loop.variable] = loop
        visitor.default_visit(realize)

    structural_visit(function.body, [(tirx.For, on_loop), (tvm.s_tir.SBlockRealize, on_block)])
    return [] if outside else list(found.values())


def _first_that_moves(place: Any, around: list[tirx.For], extent: int) -> AxisLoop | None:
    for loop in around:
        parts = tvm.sym.detect_linear_equation(place, [loop.loop_var])
        step = int(parts[0]) if len(parts) and isinstance(parts[0], tirx.IntImm) else 0
        if step:
            covers = -(-extent // step) == int(loop.extent) and loop.kind == tirx.ForKind.SERIAL
            return AxisLoop(loop.loop_var, step) if covers else None
    return None


def over_range(
    body: Any, over: AxisLoop, start: Any, extent: Any, *, small_indices: bool = False
) -> Any:
    """Let a loop take so many of its steps, from one of them on."""

    def restrict(loop: tirx.For) -> tirx.For:
        if not loop.loop_var.same_as(over.variable):
            return loop
        step = tirx.Var("step", "int32")
        index = start + step
        if small_indices:
            index = small_index(index, loop.extent)
        inner = with_values(loop.body, {over.variable: index})
        return tirx.For(step, 0, extent, loop.kind, inner)

    return structural_map(body, (tirx.For, restrict))


def rows_read(
    function: tirx.PrimFunc, parameter: int, pixels: tuple[int, int]
) -> tuple[int, int] | None:
    """Tell which rows of an input some pixels of an unscheduled kernel's output need.

    Parameters
    ----------
    function : tirx.PrimFunc
        Unscheduled; blocks have the output's pixels, row after row, as first axis.
    parameter : int
        Which of its parameters, NHWC.
    pixels : tuple of int
        The first, and one beyond the last.

    Returns
    -------
    tuple of int, optional
        The first row, and one beyond the last; ``None`` where it is not read.
    """
    source = function.params[parameter]
    lows, highs = [], []

    def on_block(block: Any, visitor: Any) -> None:
        regions = [read for read in block.reads if read.source.same_as(source)]
        if regions:
            analyzer = tvm.sym.Analyzer()
            for position, axis in enumerate(block.iter_vars):
                low, extent = int(axis.dom.min), int(axis.dom.extent)
                if position == 0:
                    low, extent = pixels[0], pixels[1] - pixels[0]
                analyzer.bind(axis.var, tvm.ir.Range.from_min_extent(low, extent))
            for region in regions:
                row = region.region[1]
                lows.append(int(analyzer.const_int_bound(row.min).min_value))
                end = row.min + row.extent
                highs.append(int(analyzer.const_int_bound(end).max_value))
        visitor.default_visit(block)

    structural_visit(function.body, [(tvm.s_tir.SBlock, on_block)])
    return (min(lows), max(highs)) if lows else None
