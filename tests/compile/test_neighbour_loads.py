"""Elements beside each other are loaded as vectors: the same numbers, nothing read outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from stages import imported, lowered, lowered_for, seeded
from torch import nn
from tvm import tirx
from tvm_ffi import structural_walk

from shuffledeploy.compiler.ir.attributes import CONVOLUTION, kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.ir.tir import is_conditional, loads_in
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.passes.tir.neighbour_loads import load_neighbours, reads_one_by_one
from shuffledeploy.compiler.targets import find_target

ARM = find_target("cortex-a72")
PIXELS, LENGTH = 4, 24


def _sums(offsets: list[int], *, edge: int = 0, over_itself: bool = False) -> tirx.PrimFunc:
    """Write a straight piece: pixel after pixel adds elements of `x`, each times four weights.

    `edge` of the steps add an element only where a condition holds, the same for each of them.
    """
    x = tirx.decl_buffer((LENGTH,), "float32", "x")
    weight = tirx.decl_buffer((4 * (len(offsets) + edge),), "float32", "weight")
    out = tirx.decl_buffer((4 * PIXELS,), "float32", "out")
    start = tirx.Var("start", "int32")
    source = out if over_itself else x

    def added(step: int, pixel: int, value: Any) -> Any:
        place = tirx.Ramp(4 * pixel, 1, 4)
        weights = tirx.BufferLoad(weight, [tirx.Ramp(4 * step, 1, 4)])
        total = tirx.BufferLoad(out, [place]) + tirx.Broadcast(value, 4) * weights
        return tirx.BufferStore(out, total, [place])

    statements = [
        added(step, step % PIXELS, tirx.BufferLoad(source, [start + offset]))
        for step, offset in enumerate(offsets)
    ]
    for step in range(edge):
        first = tirx.BufferLoad(x, [tirx.max(start - 1, 0)])
        value = tirx.if_then_else(start >= 1, first, tirx.FloatImm("float32", 0))
        statements.append(added(len(offsets) + step, step % PIXELS, value))
    body = tirx.For(start, 0, 4, tirx.ForKind.SERIAL, tirx.SeqStmt(statements))
    return tirx.PrimFunc([x, weight, out], body).with_attr("global_symbol", "main")


def _lanes_of_loads(function: tirx.PrimFunc, name: str) -> list[int]:
    loads = [load for load in loads_in(function.body) if str(load.source.name) == name]
    return sorted(int(getattr(load.indices[0], "lanes", 1)) for load in loads)


def _conditionals(function: tirx.PrimFunc) -> int:
    found = 0

    def on_call(call: Any) -> None:
        nonlocal found
        found += is_conditional(call)

    structural_walk(function.body, (tvm.ir.Call, on_call))
    return found


def _ran(function: tirx.PrimFunc) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(3)
    sizes = [int(parameter.shape[0]) for parameter in function.params]
    arrays = [generator.standard_normal(size).astype(np.float32) for size in sizes]
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    tvm.compile(tvm.IRModule({"main": function}), "llvm")["main"](*tensors)
    return tensors[-1].numpy()


@pytest.mark.parametrize(
    ("offsets", "lanes"),
    [
        ([0, 2, 4, 6, 1, 3, 5, 7], [4, 4]),  # a window of stride 2, two of its columns
        ([5, 7, 9, 11, 6, 8, 10], [4, 4]),  # the last four begin among those before
        ([0, 1, 2], [1, 1, 1]),  # a vector would read beyond them
        ([0, 19], [1, 1]),  # nothing beside them
        ([0, 1, 2, 3, 16, 17, 18, 19], [4, 4]),  # two rows
    ],
)
def test_neighbours_are_loaded_together(offsets: list[int], lanes: list[int]) -> None:
    before = _sums(offsets)
    after = load_neighbours(before)
    assert _lanes_of_loads(before, "x") == [1] * len(offsets)
    assert _lanes_of_loads(after, "x") == lanes
    np.testing.assert_array_equal(_ran(before), _ran(after))


def test_what_may_lie_outside_is_chosen_once() -> None:
    before = _sums([0, 2, 1, 3], edge=3)
    after = load_neighbours(before)
    assert (_conditionals(before), _conditionals(after)) == (3, 0)
    assert _lanes_of_loads(after, "x") == [1, 4]
    np.testing.assert_array_equal(_ran(before), _ran(after))


def test_what_the_kernel_writes_is_loaded_where_it_stands() -> None:
    before = _sums([0, 1, 2, 3], over_itself=True)
    assert _lanes_of_loads(load_neighbours(before), "out") == _lanes_of_loads(before, "out")


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("channels", "one_by_one"),
    [(10, True), (12, False), (3, True)],  # of a group; the image's are columns
)
def test_groups_that_fill_no_vectors_are_read_one_by_one(channels: int, one_by_one: bool) -> None:
    """Groups of 10 channels write all their products out, and load them by three vectors."""
    groups = 1 if channels == 3 else 3
    layer = nn.Conv2d(channels * groups, 8 * groups, 1, groups=groups)
    network = layer if groups == 1 else nn.Sequential(nn.Conv2d(3, channels * groups, 1), layer)
    module = lowered(imported(seeded(network), 1, 3, 4, 4).module, ARM.core)
    kernel = [f for f in kernel_functions(module).values() if kind_of(f) == CONVOLUTION][-1]
    assert reads_one_by_one(kernel) == one_by_one
    if channels == 10:
        code = lowered_for(ARM, scheduled(kernel, ARM.core), "load_neighbours")
        vectors = [load for load in loads_in(code.body) if str(load.source.name).startswith("x")]
        assert {int(getattr(load.indices[0], "lanes", 1)) for load in vectors} == {4}
