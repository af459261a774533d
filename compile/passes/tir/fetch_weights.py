"""A convolution asks for the weights of its next block while it computes with those of this one.

Weights are larger than a core's own cache, and each is read from memory once in an inference. Of
those of a block of outputs the first tile of pixels reads all, and waits for them; the other tiles
find them in the cache, and memory is idle.

Before::

    for block in range(n):
        for tile in range(t):
            for k in range(K): ...                      # weight[block, k]

After::

    for block in range(n):
        for tile in range(t):
            for step in range(s):
                fetch(weight[block + 1, ...])           # 1 / (t * s) of it
                for k in range(K / s): ...

Measured in whole networks on a Cascade Lake core, layers of 7x7 pixels take 0.75 to 0.9 of their
time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import tvm
import tvm.sym
from tvm import s_tir, tirx
from tvm.ir import Op, PrimType
from tvm_ffi import structural_map, structural_visit

from shuffledeploy.compiler.ir.attributes import FETCHES
from shuffledeploy.compiler.ir.memory_layout import FLOAT_BYTES
from shuffledeploy.compiler.ir.tir import with_values
from shuffledeploy.compiler.kernels.blocks import WEIGHT

# Floats in a line of the cache.
LINE = 64 // FLOAT_BYTES
# Lines that are asked for at once where a tile has too few to spread them over its steps.
MOST_AT_ONCE = 8
# Arguments of TVM's prefetch, which are LLVM's: to read, into the second level, data.
_READ, _SECOND_LEVEL, _DATA = 0, 2, 1


@dataclasses.dataclass(frozen=True)
class _Nest:
    """The loops around the sums of a scheduled convolution.

    Attributes
    ----------
    weight : tirx.Buffer
        What they read block by block.
    blocks : tuple of tirx.For
        From one block of weights to the next, as they follow each other in memory.
    tiles : tirx.For
        Over pixels, with the same block.
    steps : tuple of tirx.For
        Over a block.
    """

    weight: Any
    blocks: tuple[tirx.For, ...]
    tiles: tirx.For
    steps: tuple[tirx.For, ...]


def fetch_next_weights(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Spread fetches of the next block's weights over the work on a block.

    Parameters
    ----------
    function : tirx.PrimFunc
        A scheduled kernel. One without a loop over tiles of pixels inside of one over blocks is
        given back as it is.
    """
    nest = _find_nest(function)
    if nest is None:
        return function
    size = math.prod(map(int, nest.weight.shape)) // _times(nest.blocks)
    # The last tile and the last step may ask for more than the block: of what comes after it.
    lines = -(-size // (LINE * int(nest.tiles.extent)))
    block = (_counted(nest.blocks) + 1) * size

    def fetches(first: Any, count: int) -> list[Any]:
        return [_fetch(nest, block, first + line, lines) for line in range(count)]

    def changed(loop: tirx.For) -> tirx.For:
        if lines <= MOST_AT_ONCE:
            if loop.loop_var.same_as(nest.tiles.loop_var):
                return _with_body(loop, [*fetches(0, lines), loop.body])
        elif loop.loop_var.same_as(nest.steps[-1].loop_var):
            return _fetch_in_steps(nest.steps, lines, loop, fetches)
        return loop

    body = structural_map(function.body, (tirx.For, changed))
    return function.with_body(body).with_attr(FETCHES, True)


def _fetch(nest: _Nest, block: Any, line: Any, lines: int) -> Any:
    place = block + (nest.tiles.loop_var * lines + line) * LINE
    index = [tirx.IntImm("int32", 0)] * (len(nest.weight.shape) - 1)
    address = tirx.address_of(tirx.BufferLoad(nest.weight, [*index, place]))
    how = [tirx.IntImm("int32", value) for value in (_READ, _SECOND_LEVEL, _DATA)]
    call = tvm.ir.Call(Op.get("tirx.prefetch"), [address, *how], ret_ty=PrimType("void"))
    return tirx.Evaluate(call)


def _fetch_in_steps(
    steps: Sequence[tirx.For], lines: int, loop: tirx.For, fetches: Callable[[Any, int], list[Any]]
) -> tirx.For:
    """Spread the fetches of a tile over the steps of a block; `loop` is the innermost of these."""
    around, extent = _times(steps[:-1]), int(loop.extent)
    enough = [d for d in range(1, extent + 1) if extent % d == 0 and d * around >= lines]
    if not enough:
        at_once = -(-lines // (around * extent))
        return _with_body(loop, [*fetches(_counted(steps) * at_once, at_once), loop.body])
    # Rarer than every step: what asks would take a part of the time that it saves.
    outer, inner = tirx.Var("step", "int32"), tirx.Var("k", "int32")
    times = extent // enough[0]
    body = with_values(loop.body, {loop.loop_var: outer * times + inner})
    rest = tirx.For(inner, 0, times, tirx.ForKind.SERIAL, body)
    line = _counted(steps[:-1]) * enough[0] + outer
    return tirx.For(
        outer, 0, enough[0], tirx.ForKind.SERIAL, tirx.SeqStmt([*fetches(line, 1), rest])
    )


def _with_body(loop: tirx.For, statements: list[Any]) -> tirx.For:
    return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, tirx.SeqStmt(statements))


def _times(loops: Sequence[tirx.For]) -> int:
    return math.prod(int(loop.extent) for loop in loops)


def _counted(loops: Sequence[tirx.For]) -> Any:
    """Tell which of all its times the innermost of some loops is at."""
    count: Any = tirx.IntImm("int32", 0)
    for loop in loops:
        count = count * int(loop.extent) + loop.loop_var
    return count


def _find_nest(function: tirx.PrimFunc) -> _Nest | None:
    """Find the one place where a kernel reads its weights, and sort the loops around it."""
    weights = [parameter for parameter in function.params if str(parameter.name) == WEIGHT]
    if not weights:
        return None
    (weight,) = weights
    around: list[tirx.For] = []
    axes: list[dict[tirx.Var, Any]] = [{}]
    found: list[tuple[list[tirx.For], Any]] = []

    def on_loop(loop: tirx.For, visitor: Any) -> None:
        around.append(loop)
        visitor.default_visit(loop)
        around.pop()

    def on_block(realize: Any, visitor: Any) -> None:
        variables = [axis.var for axis in realize.block.iter_vars]
        axes.append(dict(zip(variables, realize.iter_values, strict=True)))
        visitor.default_visit(realize)
        axes.pop()

    def on_read(read: Any, visitor: Any) -> None:
        if read.source.same_as(weight):
            place: Any = tirx.IntImm("int32", 0)
            for index, extent in zip(read.indices, weight.shape, strict=True):
                place = place * int(extent) + index
            found.append((list(around), with_values(place, axes[-1])))
        visitor.default_visit(read)

    visits = [(tirx.For, on_loop), (s_tir.SBlockRealize, on_block), (tvm.ir.TensorLoad, on_read)]
    structural_visit(function.body, visits)
    return _sorted_nest(weight, *found[0]) if len(found) == 1 else None


def _sorted_nest(weight: Any, around: Sequence[tirx.For], place: Any) -> _Nest | None:
    """Sort the loops around a read into those over blocks, tiles and steps, if that is all."""
    analyzer = tvm.sym.Analyzer()
    loops = [loop for loop in around if int(loop.extent) > 1]

    def place_at(moved: tirx.For | None) -> int:
        values = {loop.loop_var: tirx.IntImm("int32", int(loop is moved)) for loop in around}
        return int(analyzer.simplify(with_values(place, values)))

    moves = [place_at(loop) - place_at(None) for loop in loops]
    if 0 not in moves:
        return None
    at = moves.index(0)
    blocks, tiles = tuple(loops[:at]), loops[at]
    steps = [
        (loop, move)
        for loop, move in zip(loops[at + 1 :], moves[at + 1 :], strict=True)
        if loop.kind == tirx.ForKind.SERIAL
    ]
    size = math.prod(map(int, weight.shape)) // _times(blocks)
    follow = all(
        move == size * _times(blocks[number + 1 :]) for number, move in enumerate(moves[:at])
    )
    serial = tiles.kind == tirx.ForKind.SERIAL and all(move for _, move in steps)
    if not (blocks and steps and follow and serial):
        return None
    return _Nest(weight, blocks, tiles, tuple(loop for loop, _ in steps))
