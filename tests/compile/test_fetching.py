"""Weights of the next block are asked for, all of them, and answers stay what they were."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tvm
from stages import HOST, finished_module, imported, lowered, seeded
from torch import nn
from tvm import tirx
from tvm_ffi import structural_visit

from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.blocks import WEIGHT
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.library import compiled_kernels
from shuffledeploy.compiler.passes.tir.fetch_weights import LINE, fetch_next_weights

CORE = Core(16, 32)
# Fetches in every step of a sum, in one of several, a few at once before a tile.
LAYERS = {
    "many": (nn.Conv2d(64, 256, 1), 7),
    "some": (nn.Conv2d(64, 192, 3, padding=1), 10),
    "few": (nn.Conv2d(16, 128, 1), 14),
    "groups": (nn.Conv2d(96, 192, 1, groups=3), 7),
}


def _kernel(layer: nn.Module, pixels: int, channels: int) -> Any:
    program = imported(seeded(nn.Sequential(layer)), 1, channels, pixels, pixels)
    functions = kernel_functions(lowered(program.module, CORE))
    (function,) = (f for f in functions.values() if any(p.name == WEIGHT for p in f.params))
    return scheduled(function, CORE)


def _fetched(function: Any) -> list[int]:
    """Run through the loops of a kernel and list the elements whose lines it asks for."""
    around: list[Any] = []
    places: list[int] = []
    analyzer = tvm.sym.Analyzer()

    def on_loop(loop: Any, visitor: Any) -> None:
        around.append(loop)
        visitor.default_visit(loop)
        around.pop()

    def on_call(call: Any, visitor: Any) -> None:
        if isinstance(call.op, tvm.ir.Op) and call.op.name == "tirx.prefetch":
            read = call.args[0].args[0]
            factors = tvm.sym.detect_linear_equation(
                read.indices[-1], [loop.loop_var for loop in around]
            )
            *steps, start = [int(analyzer.simplify(factor)) for factor in factors]
            for counts in itertools.product(*(range(int(loop.extent)) for loop in around)):
                places.append(start + sum(c * s for c, s in zip(counts, steps, strict=True)))
        visitor.default_visit(call)

    structural_visit(function.body, [(tirx.For, on_loop), (tvm.ir.Call, on_call)])
    return places


@pytest.mark.smoke
@pytest.mark.parametrize("name", LAYERS)
def test_each_line_of_later_blocks_is_asked_for(name: str) -> None:
    layer, pixels = LAYERS[name]
    kernel = _kernel(layer, pixels, layer.in_channels)
    size = int(np.prod([int(extent) for extent in kernel.params[1].shape]))
    places = np.array(_fetched(fetch_next_weights(kernel)))
    block = places.min()
    assert 0 < block < size
    assert size % block == 0
    assert set(range(block // LINE, size // LINE)) <= set(places // LINE)
    assert len(places) <= 2 * size / LINE


@pytest.mark.parametrize("name", LAYERS)
def test_answers_stay_the_same_to_the_bit(name: str) -> None:
    layer, pixels = LAYERS[name]
    kernel = _kernel(layer, pixels, layer.in_channels)
    first, second = (_answer(kernel, fetches=fetches) for fetches in (False, True))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first).max() > 0


def _answer(kernel: Any, *, fetches: bool) -> Array:
    rng = np.random.default_rng(7)
    *inputs, out = [
        tvm.runtime.tensor(rng.standard_normal([int(e) for e in p.shape]).astype(np.float32))
        for p in kernel.params
    ]
    library = _built(kernel, fetches=fetches)
    library["main"](*inputs, out)
    return out.numpy()


def _built(kernel: Any, *, fetches: bool) -> Any:
    module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
    return compiled_kernels(finished_module(module, fetches=fetches), HOST)


def test_sums_stand_where_no_fetch_can_read_them() -> None:
    """LLVM wrote them to a workspace in every step: 14x14 layers took 1.25 times as long."""
    layer, pixels = LAYERS["many"]
    kernel = _kernel(layer, pixels, layer.in_channels)
    plain, fetching = (
        str(_built(kernel, fetches=f).mod.inspect_source("ll")) for f in (False, True)
    )
    assert "llvm.prefetch" in fetching
    assert "llvm.prefetch" not in plain
    assert "TVMBackendAllocWorkspace" not in fetching


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("layer", "channels", "pixels"),
    [
        (nn.Conv2d(64, 256, 1), 64, 1),
        (nn.Conv2d(64, 64, 3, padding=1, groups=64), 64, 7),
        (nn.Conv2d(64, 16, 1), 64, 7),
    ],
    ids=["one pixel", "depthwise", "one block"],
)
def test_a_kernel_without_a_next_block_is_left_alone(
    layer: nn.Module, channels: int, pixels: int
) -> None:
    kernel = _kernel(layer, pixels, channels)
    assert fetch_next_weights(kernel).same_as(kernel)
