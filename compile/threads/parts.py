"""A scheduled kernel that computes one of several equal parts: what threads share out.

Before::

    for group in range(3):
        for tile in range(28): ...

After, for a kernel whose pixels are parted::

    for group in range(3):
        for step in range(end - first): ...             # tile = first + step

or whose outermost loops are, counted through, since its weights are the larger part::

    for outer in range(ceil(end / 28) - first // 28):   # group = first // 28 + outer
        for step in range(...): ...                     # of the 84 tiles those from first to end

Part ``t`` of ``n`` goes from unit ``t * units // n`` to before ``(t + 1) * units // n``. Each
output is computed by one part, in the order of the whole kernel: answers are the same to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tvm
import tvm.sym
from tvm import s_tir, tirx
from tvm.ir import PrimType

from shuffledeploy.compiler.ir.attributes import CONVOLUTION, INTERNAL, JOINED, kind_of
from shuffledeploy.compiler.ir.tir import (
    as_pointers,
    with_parameters,
    with_root,
    with_values,
)
from shuffledeploy.compiler.ir.tvm_edges import PLAIN_CALLS
from shuffledeploy.compiler.kernels.images import images_of
from shuffledeploy.compiler.passes.tir.last_tile import conditional_loop, part_last_tile
from shuffledeploy.compiler.strips.ranged import axis_loops, over_range
from shuffledeploy.compiler.threads.cuts import choose_cut, outer_loops

# Parts are given as unsigned 16 bits: their sign needs no proof where an index is divided.
PART_TYPE = "uint16"
# Of the axes of a convolution's blocks, that which counts the outputs of a group.
_OUTPUTS_AXIS = 2


def part_bounds(part: Any, units: int, parts: int) -> tuple[Any, Any]:
    """Write the first unit of a part, and one beyond its last."""
    number = tirx.Cast("int32", part)
    first, end = (tirx.floordiv(n * units, parts) for n in (number, number + 1))
    return first, end


def part_call(part: tvm.ir.GlobalVar, pointers: Sequence[Any], parts: int) -> tirx.For:
    """Call a function for each part, in parallel.

    Parameters
    ----------
    part : GlobalVar
        What computes a part: takes pointers, and its number.
    pointers : sequence
        To the elements of its tensors.
    parts : int
        How many there are.
    """
    number = tirx.Var("part", "int32")
    arguments = [*pointers, tirx.Cast(PART_TYPE, number)]
    call = tirx.Evaluate(tvm.ir.Call(part, arguments, ret_ty=PrimType("int32")))
    if parts == 1:
        # Of a loop of one step TVM would leave what is inside, for each thread.
        call = tirx.IfThenElse(tirx.EQ(number, 0), call, None)
    return tirx.For(number, 0, max(parts, 2), tirx.ForKind.PARALLEL, call)


def part_of(function: tirx.PrimFunc, parts: int) -> tirx.PrimFunc | None:
    """Let a scheduled kernel compute one of equal parts; ``None`` where its loops do not allow.

    Parameters
    ----------
    function : tirx.PrimFunc
        A scheduled kernel. One of several images counts these through, too.
    parts : int
        How many there are.

    Returns
    -------
    tirx.PrimFunc, optional
        Takes pointers to the elements of the kernel's tensors, and the number of the part.
    """
    if not kind_of(function) or not isinstance(function.body, s_tir.SBlockRealize):
        return None
    loops = outer_loops(function)
    cut = choose_cut(function, loops, parts) if loops else None
    if cut is None:
        return _part_of_each_loop(function, parts)
    part = tirx.Var("part", PART_TYPE)
    first, end = part_bounds(part, cut.units, parts)
    outer, inner = loops[cut.first : cut.last], loops[cut.last]
    steps = int(inner.extent)
    counted = tirx.Var("outer", "int32")
    at = tirx.floordiv(first, steps) + counted if outer else tirx.IntImm("int32", 0)
    begin, stop = first, end
    if outer:
        begin, stop = tirx.max(first - at * steps, 0), tirx.min(end - at * steps, steps)
    cut_function = _with_last_tile(function, inner, (begin, stop))
    statement: Any = cut_function.body.block.body
    for _ in range(cut.last):
        statement = statement.body
    if isinstance(statement, tirx.For) and statement.loop_var.same_as(inner.loop_var):
        step = tirx.Var("step", "int32")
        inside = with_values(statement.body, {inner.loop_var: begin + step})
        statement = tirx.For(step, 0, stop - begin, tirx.ForKind.SERIAL, inside)
    if outer:
        rounds = tirx.floordiv(end + (steps - 1), steps) - tirx.floordiv(first, steps)
        inside = with_values(statement, _counted_values(outer, at))
        statement = tirx.For(counted, 0, rounds, tirx.ForKind.SERIAL, inside)
    for loop in reversed(loops[: cut.first]):
        statement = tirx.For(loop.loop_var, 0, loop.extent, tirx.ForKind.SERIAL, statement)
    body = with_root(cut_function.body, statement, cut_function.body.block.alloc_buffers)
    return _of_pointers(function, body, part)


def _part_of_each_loop(function: tirx.PrimFunc, parts: int) -> tirx.PrimFunc | None:
    """Part each of a kernel's nests of loops alike: over pixels, or outputs of a linear layer.

    Buffers between the nests are as large as for the whole, and each part has its own.
    """
    *_, channels = shape = [int(extent) for extent in function.params[-1].shape]
    linear = kind_of(function) == CONVOLUTION and math.prod(shape) == channels
    if images_of(function) > 1 or not (linear or kind_of(function) == JOINED):
        return None
    axis, extent = (_OUTPUTS_AXIS, channels) if linear else (0, math.prod(shape[:-1]))
    loops = axis_loops(function, axis, extent)
    unit = math.lcm(*(loop.step for loop in loops))
    if not loops or extent % unit or extent // unit < parts:
        return None
    part = tirx.Var("part", PART_TYPE)
    number, (smaller, more) = tirx.Cast("int32", part), divmod(extent // unit, parts)
    root = function.body.block
    own = {b: tirx.decl_buffer(b.shape, str(b.dtype), f"more_{b.name}") for b in root.alloc_buffers}

    def of_size(size: int, first: Any, body: Any) -> Any:
        # TVM wants to know how much of a buffer between nests a part needs.
        for loop in loops:
            times = unit // loop.step
            body = over_range(body, loop, first * times, size * times)
        return body

    body = of_size(smaller, number * smaller + more, root.body)
    if more:
        with_more = of_size(smaller + 1, number * (smaller + 1), with_values(root.body, own))
        body = tirx.IfThenElse(number < more, with_more, body)
    realize = with_root(function.body, body, [*root.alloc_buffers, *(own.values() if more else ())])
    return _of_pointers(function, realize, part)


def only_part(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Let a function compute its one part, which is all of its work."""
    return _of_pointers(function, function.body, tirx.Var("part", PART_TYPE))


def _of_pointers(function: tirx.PrimFunc, body: Any, part: tirx.Var) -> tirx.PrimFunc:
    pointers, views = as_pointers(function)
    made = with_parameters(function, [*pointers, part], tirx.SeqStmt([*views, body]))
    return made.with_attr({INTERNAL: True, **PLAIN_CALLS})


def _with_last_tile(
    function: tirx.PrimFunc, parted: tirx.For, bounds: tuple[Any, Any]
) -> tirx.PrimFunc:
    """Give the last tile code of its own, where it needs any, the loop that is parted its bounds.

    Conditions do not hold up loops of unknown extent: they are taken out first.
    """
    conditional = conditional_loop(function.body)
    if conditional is None:
        return function
    ours = conditional.loop_var.same_as(parted.loop_var)
    return part_last_tile(function, bounds if ours else None)


def _counted_values(loops: Sequence[tirx.For], count: Any) -> dict[tirx.Var, Any]:
    """Give the variables of nested loops by the number of steps that the innermost made."""
    values: dict[tirx.Var, Any] = {}
    for place, loop in enumerate(loops):
        inside = math.prod(int(other.extent) for other in loops[place + 1 :])
        value = tirx.floordiv(count, inside) if inside > 1 else count
        values[loop.loop_var] = tirx.floormod(value, int(loop.extent)) if place else value
    return values
