"""The last tile of a loop that tiles do not fill has code of its own.

Before::

    for tile in range(10):
        for pixel in unrolled(5):
            if tile * 5 + pixel < 49: ...

After::

    for tile in range(9):
        for pixel in unrolled(5): ...
    for pixel in unrolled(5):
        if 45 + pixel < 49: ...                         # known once the loop is written out

A condition inside of all tiles would keep LLVM from holding their sums in registers.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm.sym
from tvm import s_tir, tirx
from tvm_ffi import structural_map, structural_visit

from shuffledeploy.compiler.ir.tir import small_index, with_root, with_values


def part_last_tile(
    function: tirx.PrimFunc,
    bounds: tuple[Any, Any] | None = None,
    *,
    small_indices: bool = False,
) -> tirx.PrimFunc:
    """Take the last step out of the loop over tiles that blocks have conditions on.

    Parameters
    ----------
    function : tirx.PrimFunc
        A scheduled kernel. One without such a loop is given back as it is.
    bounds : tuple, optional
        The step of the loop to begin with, and one beyond the last, where not all are wanted.
    small_indices : bool
        Whether LLVM is then to know how large indices can become (`small_index`).
    """
    loop = conditional_loop(function.body)
    if loop is None:
        return function
    last = int(loop.extent) - 1
    root = function.body.block
    tiles = [buffer for buffer in root.alloc_buffers if _uses(loop.body, buffer)]
    # A tile in memory is as large as what all of its code needs: the last one has its own.
    others = {
        tile: tirx.decl_buffer([int(e) for e in tile.shape], str(tile.dtype), f"last_{tile.name}")
        for tile in tiles
    }

    def parted(found: tirx.For) -> Any:
        if not found.loop_var.same_as(loop.loop_var):
            return found
        values = {loop.loop_var: tirx.IntImm("int32", last), **others}
        rest = with_values(loop.body, values)
        whole = _unconditional(loop.body)
        if bounds is None:
            return tirx.SeqStmt([tirx.For(loop.loop_var, 0, last, loop.kind, whole), rest])
        first, end = bounds
        step = tirx.Var("step", "int32")
        index = small_index(first + step, loop.extent) if small_indices else first + step
        whole = with_values(whole, {loop.loop_var: index})
        steps = tirx.min(end, last) - first
        within = tirx.For(step, 0, steps, loop.kind, whole)
        return tirx.SeqStmt([within, tirx.IfThenElse(end > last, rest, None)])

    body = structural_map(root.body, (tirx.For, parted))
    allocated = [*root.alloc_buffers, *others.values()]
    return function.with_body(with_root(function.body, body, allocated))


def conditional_loop(body: Any) -> tirx.For | None:
    """Find the loop of which only the last step does not meet all conditions of the blocks in it.

    Returns
    -------
    tirx.For, optional
        ``None`` where no block has a condition, or one has another.
    """
    around: list[tirx.For] = []
    found: list[tirx.For | None] = []

    def on_loop(loop: tirx.For, visitor: Any) -> None:
        around.append(loop)
        visitor.default_visit(loop)
        around.pop()

    def on_block(realize: Any, visitor: Any) -> None:
        if not isinstance(realize.predicate, tirx.IntImm):
            found.append(next((x for x in around if _meets_but_last(realize, around, x)), None))
        visitor.default_visit(realize)

    structural_visit(body, [(tirx.For, on_loop), (s_tir.SBlockRealize, on_block)])
    first = found[0] if found else None
    same = all(loop is not None and loop.same_as(first) for loop in found)
    return first if same else None


def _meets_but_last(realize: Any, around: list[tirx.For], parted: tirx.For) -> bool:
    if not all(isinstance(loop.extent, tirx.IntImm) for loop in around):
        return False
    if parted.kind != tirx.ForKind.SERIAL or int(parted.extent) < 2:
        return False
    analyzer = tvm.sym.Analyzer()
    for loop in around:
        extent = int(loop.extent) - int(loop.loop_var.same_as(parted.loop_var))
        analyzer.bind(loop.loop_var, tvm.ir.Range.from_min_extent(0, extent))
    return bool(analyzer.can_prove(realize.predicate))


def _unconditional(body: Any) -> Any:
    always = tirx.IntImm("bool", 1)
    return structural_map(
        body, (s_tir.SBlockRealize, lambda r: s_tir.SBlockRealize(r.iter_values, always, r.block))
    )


def _uses(body: Any, buffer: Any) -> bool:
    found = False

    def on_buffer(read: Any, visitor: Any) -> None:
        nonlocal found
        found |= read.same_as(buffer)
        visitor.default_visit(read)

    structural_visit(body, [(type(buffer), on_buffer)])
    return found
