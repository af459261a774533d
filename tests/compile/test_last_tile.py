"""Tiles that do not fill a layer's pixels: no condition in them, and the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import tvm
from stages import assert_same, draw, finished, imported, lowered, run, seeded
from torch import nn
from tvm import s_tir, tirx
from tvm.s_tir import Schedule
from tvm_ffi import structural_visit

from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import forms, scheduled
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.memory.replace_kernels import replace_kernels
from shuffledeploy.compiler.passes.tir.last_tile import part_last_tile
from shuffledeploy.compiler.strips.ranged import ranged

CORE = Core(16, 32)
PIXELS = 49


class _Shuffled(nn.Module):
    """Convolutions of 7x7 pixels: alone, over a residual, from and to channels in other orders."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(24, 60, 1, groups=3), nn.Conv2d(60, 24, 1, groups=3)
        self.table = nn.Conv2d(24, 20, 1, groups=2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shuffled = nn.functional.channel_shuffle(torch.relu(self.first(x)), 3)
        y = torch.relu(self.second(shuffled) + x)
        return y, self.table(nn.functional.channel_shuffle(y, 8))


def _tiled(function: Any, pixels: int) -> Any:
    """Schedule a convolution with tiles of so many pixels, other kernels with default numbers."""
    found = forms(function, CORE)
    if not found:
        return scheduled(function, CORE)
    schedule = Schedule(tvm.IRModule({"main": function}), debug_mask="all")
    found[0](schedule, lambda options, default: pixels if pixels in options else default)
    return schedule.mod["main"]


def _pixels_written(function: Any) -> tuple[int, int]:
    """Count the pixels that are written without a condition, and those with one on other loops."""
    around: list[Any] = []
    written = {True: 0, False: 0}

    def on_loop(loop: Any, visitor: Any) -> None:
        around.append(loop)
        visitor.default_visit(loop)
        around.pop()

    def on_block(realize: Any, visitor: Any) -> None:
        if realize.block.name_hint == "output":
            always = isinstance(realize.predicate, tirx.IntImm)
            times = int(np.prod([int(loop.extent) for loop in around]))
            written[always] += times
        visitor.default_visit(realize)

    visits = [(tirx.For, on_loop), (s_tir.SBlockRealize, on_block)]
    structural_visit(function.body, visits)
    channels = int(function.params[-1].shape[-1])
    return written[True] // channels, written[False] // channels


def _convolution(channels: int, outputs: int) -> Any:
    layer = seeded(nn.Sequential(nn.Conv2d(channels, outputs, 1)))
    functions = kernel_functions(lowered(imported(layer, 1, channels, 7, 7).module, CORE))
    return next(f for name, f in functions.items() if name.startswith("conv"))


@pytest.mark.smoke
@pytest.mark.parametrize(("tile", "whole"), [(5, 45), (4, 48), (3, 48)])
def test_only_the_last_tile_has_a_condition(tile: int, whole: int) -> None:
    kernel = _tiled(_convolution(32, 80), tile)
    assert _pixels_written(kernel) == (0, whole + tile)
    assert _pixels_written(finished(kernel)) == (whole, tile)
    once = part_last_tile(kernel)
    assert part_last_tile(once).same_as(once)


@pytest.mark.smoke
def test_tiles_that_fill_the_pixels_are_left_alone() -> None:
    kernel = _tiled(_convolution(32, 32), 7)
    assert _pixels_written(kernel) == (PIXELS, 0)
    assert part_last_tile(kernel).same_as(kernel)


def test_a_kernel_with_other_conditions_goes_not_by_ranges() -> None:
    """Such as a record may bring: its last tile could not be taken out, and it would do all."""
    schedule = Schedule(tvm.IRModule({"main": _convolution(32, 80)}))
    accumulate, output = schedule.get_sblock("accumulate"), schedule.get_sblock("output")
    schedule.compute_inline(schedule.get_sblock("taken"))
    p, _, o, *_ = schedule.get_loops(accumulate)
    schedule.split(o, [None, 3])
    outer, _ = schedule.split(p, [None, 5])
    schedule.reverse_compute_at(output, outer, preserve_unit_loops=True)
    kernel = schedule.mod["main"]
    assert part_last_tile(kernel).same_as(kernel)
    assert ranged(kernel) is None


@pytest.mark.parametrize("tile", [2, 3, 4, 5, 6, 9])
def test_every_pixel_is_computed(tile: int) -> None:
    network = seeded(_Shuffled())
    module = lowered(imported(network, 1, 24, 7, 7).module, CORE)
    functions = {name: _tiled(f, tile) for name, f in kernel_functions(module).items()}
    value = draw(1, 24, 7, 7)
    assert_same(run(replace_kernels(module, functions), value.numpy()), network, value)
