"""Which loops of a scheduled kernel its parts take their steps of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from tvm import s_tir, tirx
from tvm_ffi import structural_visit

from shuffledeploy.compiler.ir.tir import is_tensor, tensor_bytes
from shuffledeploy.compiler.kernels.blocks import WEIGHT
from shuffledeploy.compiler.passes.tir.last_tile import conditional_loop

# Share of the threads' time that they work, from which a way to cut a kernel is good enough.
BUSY_ENOUGH = 0.95


@dataclasses.dataclass(frozen=True)
class Cut:
    """Neighbouring loops that are counted through, and so parted.

    Attributes
    ----------
    first, last : int
        Which of the outermost loops, both included.
    units : int
        Steps of the innermost of them, in all.
    """

    first: int
    last: int
    units: int

    def busy(self, threads: int) -> float:
        """Tell the share of the time that all of so many threads work."""
        return self.units / (threads * math.ceil(self.units / threads))


def outer_loops(function: tirx.PrimFunc) -> list[tirx.For]:
    """List the loops around all of a kernel, the outermost first, whose steps may go in any order.

    None inside of the loop whose last tile has code of its own.
    """
    conditional = conditional_loop(function.body)
    loops: list[tirx.For] = []
    statement = function.body.block.body
    while isinstance(statement, tirx.For) and _is_plain(statement):
        if not _goes_in_any_order(statement):
            break
        loops.append(statement)
        if conditional is not None and statement.loop_var.same_as(conditional.loop_var):
            break
        statement = statement.body
    return loops


def _is_plain(loop: tirx.For) -> bool:
    constant = isinstance(loop.extent, tirx.IntImm) and isinstance(loop.min, tirx.IntImm)
    return constant and int(loop.min) == 0 and loop.kind == tirx.ForKind.SERIAL


def _goes_in_any_order(loop: tirx.For) -> bool:
    """Whether a loop only counts what blocks write: none sums over it, none is without axes."""
    fits = True

    def on_block(realize: Any, visitor: Any) -> None:
        nonlocal fits
        axes = zip(realize.block.iter_vars, realize.iter_values, strict=True)
        for axis, value in axes:
            if int(axis.iter_type) != tirx.IterVar.DataPar and _mentions(value, loop.loop_var):
                fits = False
        fits &= bool(realize.block.iter_vars)
        visitor.default_visit(realize)

    structural_visit(loop.body, [(s_tir.SBlockRealize, on_block)])
    return fits


def _mentions(value: Any, variable: tirx.Var) -> bool:
    found = False

    def on_variable(read: Any, visitor: Any) -> None:
        nonlocal found
        found |= read.same_as(variable)
        visitor.default_visit(read)

    structural_visit(value, [(tirx.Var, on_variable)])
    return found


def choose_cut(function: tirx.PrimFunc, loops: list[tirx.For], parts: int) -> Cut | None:
    """Choose the loops to part: over pixels, or the outermost where weights are the larger part.

    What one layer writes, the same thread then finds in its own cache for the next one; but each
    thread reads all weights.
    """
    extents = [int(loop.extent) for loop in loops]
    outermost = [Cut(0, last, math.prod(extents[: last + 1])) for last in range(len(loops))]
    over_pixels = [
        Cut(first, last, math.prod(extents[first : last + 1]))
        for first in _pixel_loops(function, loops)
        for last in range(first, len(loops))
    ]
    ordered = [*over_pixels, *outermost] if _moves_pixels(function) else [*outermost, *over_pixels]
    cuts = [cut for cut in ordered if cut.units >= parts]
    good = [cut for cut in cuts if cut.busy(parts) >= BUSY_ENOUGH]
    return good[0] if good else max(cuts, key=lambda cut: cut.busy(parts), default=None)


def _moves_pixels(function: tirx.PrimFunc) -> bool:
    """Whether a kernel has more bytes of activations than of weights."""
    tensors = [p for p in function.params if is_tensor(p)]
    sizes = [tensor_bytes(p.shape, p.dtype) for p in tensors]
    weights = sum(s for p, s in zip(tensors, sizes, strict=True) if str(p.name) == WEIGHT)
    return sum(sizes) - weights > weights


def _pixel_loops(function: tirx.PrimFunc, loops: Sequence[tirx.For]) -> list[int]:
    """List which of some loops move over the pixels of the output: the first axis of all blocks."""
    moving = set(range(len(loops)))

    def on_block(realize: Any, visitor: Any) -> None:
        if realize.block.iter_vars:
            pixel = realize.iter_values[0]
            moving.intersection_update(
                place for place, loop in enumerate(loops) if _mentions(pixel, loop.loop_var)
            )
        visitor.default_visit(realize)

    structural_visit(function.body.block.body, [(s_tir.SBlockRealize, on_block)])
    return sorted(moving)
