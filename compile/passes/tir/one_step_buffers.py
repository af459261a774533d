"""A scheduled kernel's buffers hold what one step of the loops around all of their uses needs.

Before::

    scores = alloc(3, 9, 22, 224)
    for head in range(3):
        for block in range(9):
            ... scores[head, block, row, key] ...

After::

    scores = alloc(1, 1, 22, 224)
    for head in range(3):
        for block in range(9):
            ... scores[0, 0, row, key] ...

TVM's lowering does so, too; but a network without a runtime gives large buffers a place in its
workspace, and has to know their size before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
import tvm.sym
from tvm import s_tir, tirx
from tvm_ffi import structural_map, structural_walk

from shuffledeploy.compiler.ir.attributes import BUFFERED, kind_of
from shuffledeploy.compiler.ir.tir import loads_in, with_root, with_values


def hold_one_step(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Shorten the axes of a scheduled kernel's buffers; see the module's docstring."""
    if kind_of(function) not in BUFFERED or not isinstance(function.body, s_tir.SBlockRealize):
        # Another kernel, or a thread's part of one, of which that was done.
        return function
    root = function.body.block
    shorter = {}
    steps = _steps(root.body, root.alloc_buffers)
    for buffer, axes in zip(root.alloc_buffers, steps, strict=True):
        extents = [1 if step is not None else int(e) for step, e in zip(axes, buffer.shape)]
        name, scope = str(buffer.name), str(buffer.scope())
        shorter[buffer] = tirx.decl_buffer(extents, str(buffer.dtype), name, scope=scope)
    body = _rewritten(root.body, shorter)
    return function.with_body(with_root(function.body, body, list(shorter.values())))


def _steps(body: Any, buffers: Any) -> list[list[Any]]:
    """Of each axis of each buffer: the loop variable that alone indexes it, or ``None``."""
    seen: list[list[list[Any]]] = [[[] for _ in buffer.shape] for buffer in buffers]
    analyzer = tvm.sym.Analyzer()
    only_steps: dict[tirx.Var, Any] = {}

    def on_loop(loop: tirx.For) -> None:
        if isinstance(loop.extent, tirx.IntImm) and int(loop.extent) == 1:
            only_steps[loop.loop_var] = loop.min

    def on_block(realize: Any) -> None:
        pairs = list(zip(realize.block.iter_vars, realize.iter_values, strict=True))

        def step_of(index: Any) -> Any:
            bound = next((v for axis, v in pairs if axis.var.same_as(index)), None)
            step = None if bound is None else analyzer.simplify(with_values(bound, only_steps))
            return step if isinstance(step, tirx.Var) else None

        uses = [(load.source, load.indices) for load in loads_in(realize.block.body)]
        structural_walk(
            realize.block.body,
            (tirx.BufferStore, lambda store: uses.append((store.buffer, store.indices))),
        )
        for buffer, axes in zip(buffers, seen, strict=True):
            for used, indices in uses:
                if used.same_as(buffer):
                    for found, index in zip(axes, indices, strict=True):
                        found.append(step_of(index))

    structural_walk(body, (tirx.For, on_loop))
    structural_walk(body, (s_tir.SBlockRealize, on_block))
    return [[_only(found) for found in axes] for axes in seen]


def _only(found: list[Any]) -> Any:
    same = bool(found) and all(v is not None and v.same_as(found[0]) for v in found)
    return found[0] if same else None


def _rewritten(body: Any, shorter: dict[Any, Any]) -> Any:
    def new_of(buffer: Any) -> Any:
        return next((new for old, new in shorter.items() if old.same_as(buffer)), None)

    def within(new: Any, indices: Any, zero: Callable[[Any], Any]) -> list[Any]:
        pairs = zip(new.shape, indices, strict=True)
        return [zero(index) if int(extent) == 1 else index for extent, index in pairs]

    def load(node: Any) -> Any:
        if (new := new_of(node.source)) is None:
            return node
        return tirx.BufferLoad(new, within(new, node.indices, lambda _: tirx.const(0)))

    def store(node: Any) -> Any:
        if (new := new_of(node.buffer)) is None:
            return node
        at = within(new, node.indices, lambda _: tirx.const(0))
        return tirx.BufferStore(new, node.value, at)

    def region(node: Any) -> Any:
        if (new := new_of(node.source)) is None:
            return node
        first = tvm.ir.Range.from_min_extent(0, 1)
        return tirx.BufferRegion(new, within(new, node.region, lambda _: first))

    for kind, change in (
        (tvm.ir.TensorLoad, load), (tirx.BufferStore, store), (tvm.ir.TensorRegion, region),
    ):  # fmt: skip
        body = structural_map(body, (kind, change))
    return body
