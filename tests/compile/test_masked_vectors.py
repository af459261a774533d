"""Odd vectors become whole ones that move under masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stages import (
    HOST,
    assert_same,
    avx512,
    draw,
    imported,
    lowered,
    lowered_for,
    run,
    seeded,
    with_schedules,
)
from torch import nn
from torch.nn import functional
from tvm import tirx

from shuffledeploy.compiler.ir.attributes import kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.tir.masked_vectors import mask_odd_vectors
from shuffledeploy.compiler.targets import find_target


def _function(lanes: int, *, where: Any = 7, operation: Any = None) -> tirx.PrimFunc:
    """Write ``out[7:] = max(tile[0] + x[7:], 0)``, where tile[0] is a vector of x."""
    x, out = (tirx.decl_buffer((100,), "float32", name) for name in ("x", "out"))
    tile = tirx.decl_buffer((2,), f"float32x{lanes}", "tile")
    run_of = tirx.Ramp(tirx.IntImm("int32", where), 1, lanes)
    load, zero = tirx.BufferLoad(x, [run_of]), tirx.FloatImm("float32", 0.0)
    total = tirx.BufferLoad(tile, [0]) + load
    value = operation(total) if operation else tirx.max(total, tirx.Broadcast(zero, lanes))
    body = [
        tirx.AllocBuffer(tile),
        tirx.BufferStore(tile, load, [0]),
        tirx.BufferStore(out, value, [run_of]),
    ]
    return tirx.PrimFunc([x, out], tirx.SeqStmt(body))


@pytest.mark.smoke
@pytest.mark.parametrize(("lanes", "whole"), [(3, 16), (10, 16), (14, 16), (24, 32), (47, 48)])
def test_odd_vectors_are_whole(lanes: int, whole: int) -> None:
    text = mask_odd_vectors(_function(lanes)).script()
    assert f"float32x{lanes}" not in text
    assert f'"float32x{whole}"' in text
    assert text.count("masked.load") == 2
    assert text.count("masked.store") == 1


@pytest.mark.smoke
@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 32, 48])
def test_other_vectors_stay_as_they_are(lanes: int) -> None:
    function = _function(lanes)
    assert mask_odd_vectors(function).script() == function.script()


@pytest.mark.smoke
def test_what_is_not_known_stays_as_it_is() -> None:
    function = _function(14, operation=lambda value: tirx.Cast("float32x14", tirx.exp(value)))
    assert mask_odd_vectors(function).script() == function.script()


@pytest.mark.smoke
def test_places_that_are_named_stay_as_they_are() -> None:
    """TVM gives a name to places that several statements have: it was taken for one place."""
    x, out = (tirx.decl_buffer((40,), "float32", name) for name in ("x", "out"))
    tile = tirx.decl_buffer((40,), "float32", "tile")
    run_of = tirx.Ramp(tirx.IntImm("int32", 0), 1, 10)
    places = tirx.Var("places", run_of.ty)
    two = tirx.Broadcast(tirx.FloatImm("float32", 2.0), 10)
    body = [
        tirx.AllocBuffer(tile),
        tirx.Bind(places, run_of),
        tirx.BufferStore(tile, tirx.BufferLoad(x, [places]), [places]),
        tirx.BufferStore(out, tirx.BufferLoad(tile, [places]) / two, [places]),
    ]
    function = tirx.PrimFunc([x, out], tirx.SeqStmt(body))
    assert mask_odd_vectors(function).script() == function.script()


class _Odd(nn.Module):
    """Windows and convolutions of 30, 15 and 20 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 30, 3, 2, 1)
        self.depthwise = nn.Conv2d(30, 30, 3, 1, 1, groups=30)
        self.strided = nn.Conv2d(30, 30, 3, 2, 1, groups=30)
        self.pointwise, self.last = nn.Conv2d(30, 15, 1), nn.Conv2d(15, 60, 1, groups=3)
        self.narrow = nn.Conv2d(15, 15, 5, 1, 2, groups=15, bias=False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = torch.relu(self.first(image))
        y = functional.relu6(self.depthwise(x) + x)
        z = self.pointwise(y)
        answers = [
            torch.relu(self.strided(y)), self.narrow(z), self.last(z),
            functional.max_pool2d(x, 3, 2, 1), functional.avg_pool2d(z, 3, 2, 1) - 1,
        ]  # fmt: skip
        return [answer.permute(0, 2, 3, 1) for answer in answers]


def test_odd_channels_compute_the_same() -> None:
    """With masks where this machine has them."""
    network, value = seeded(_Odd()), draw(1, 3, 22, 26)
    module = with_schedules(lowered(imported(network, 1, 3, 22, 26).module))
    assert_same(run(module, value.numpy(), target=HOST), network, value)


def test_no_window_moves_odd_vectors_where_there_are_masks() -> None:
    target = avx512()
    module = lowered(imported(seeded(_Odd()), 1, 3, 22, 26).module, target.core)
    scheduled = kernel_functions(with_schedules(module, target.core))
    windows = {name: f for name, f in scheduled.items() if kind_of(f) == "window"}
    assert len(windows) == 5
    for name, function in windows.items():
        text = lowered_for(target, function).script()
        assert "masked.load" in text, name
        assert "x15" not in text, name
        assert "x30" not in text, name
    for other in ("cortex-a72", '{"kind":"llvm","mtriple":"x86_64-linux-gnu","mcpu":"haswell"}'):
        assert "masked" not in lowered_for(find_target(other), function).script()


@pytest.mark.smoke
def test_only_vectors_of_sixteen_have_masks() -> None:
    assert Core(16, 32).masks
    assert not any(core.masks for core in (Core(4, 32), Core(8, 16), Core(4, 16)))
