"""Sums start from the residual: it is read first, the bias last, and answers are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import tvm
from stages import assert_same, draw, imported, lowered, run, seeded
from torch import nn
from tvm import s_tir
from tvm_ffi import structural_visit

from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.memory.replace_kernels import replace_kernels
from shuffledeploy.compiler.passes.tir.last_tile import part_last_tile
from shuffledeploy.compiler.passes.tir.over_residual import over_residual, residual_of
from shuffledeploy.compiler.passes.tir.start_from_residual import start_from_residual

CORE = Core(4, 32)


class _Unit(nn.Module):
    """Three groups of a convolution over a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.second = nn.Conv2d(channels, channels, 1, groups=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + x)


class _Gated(nn.Module):
    """The sums are read twice: for what they are, and for how much of it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(12, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return torch.sigmoid(y) * (y + x)


def _kernels(network: nn.Module, channels: int) -> dict[str, Any]:
    module = lowered(imported(network, 1, channels, 7, 7).module, CORE)
    return {name: scheduled(f, CORE) for name, f in kernel_functions(module).items()}


def _reads(function: Any) -> dict[str, list[str]]:
    """List what each block reads, by its name; a tile that is parted has some twice."""
    found: dict[str, list[str]] = {}

    def on_block(block: Any, visitor: Any) -> None:
        names = {str(region.source.name) for region in block.reads}
        found.setdefault(block.name_hint, []).extend(sorted(names))
        visitor.default_visit(block)

    structural_visit(function.body, [(s_tir.SBlock, on_block)])
    return found


def _over_residual(network: nn.Module, channels: int) -> Any:
    kernels = _kernels(network, channels).values()
    return next(f for f in kernels if any("residual" in str(p.name) for p in f.params))


@pytest.mark.smoke
def test_the_residual_comes_first_and_the_bias_last() -> None:
    kernel = _over_residual(seeded(_Unit(24)), 24)
    assert _reads(kernel)["output"] == ["residual_1", "total"]
    changed = start_from_residual(kernel)
    assert _reads(changed)["accumulate_init"] == ["residual_1"]
    assert _reads(changed)["output"] == ["bias_0", "total"]
    assert start_from_residual(changed).same_as(changed)


@pytest.mark.smoke
def test_the_last_tile_starts_from_the_residual_too() -> None:
    kernel = start_from_residual(part_last_tile(_over_residual(seeded(_Unit(24)), 24)))
    assert _reads(kernel)["accumulate_init"] == ["residual_1", "residual_1"]


@pytest.mark.smoke
def test_in_the_place_of_the_residual_it_is_read_before_it_is_written() -> None:
    kernel = _over_residual(seeded(_Unit(24)), 24)
    place = residual_of(kernel)
    assert place is not None
    changed = start_from_residual(over_residual(kernel, place))
    assert _reads(changed)["accumulate_init"] == ["out"]
    assert _reads(changed)["output"] == ["bias_0", "total"]


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (_Unit(30), 30),  # groups of 10: the last lanes have no residual
        (_Gated(), 12),  # the sums are wanted without the residual
        (nn.Conv2d(24, 24, 1), 24),  # nothing is added
    ],
)
def test_other_sums_start_as_they_did(network: nn.Module, channels: int) -> None:
    for kernel in _kernels(seeded(network), channels).values():
        assert _reads(start_from_residual(kernel)) == _reads(kernel)


@pytest.mark.parametrize("channels", [24, 30, 48])
def test_answers_are_the_same(channels: int) -> None:
    network = seeded(_Unit(channels))
    module = lowered(imported(network, 1, channels, 7, 7).module, CORE)
    functions = {
        name: start_from_residual(scheduled(f, CORE))
        for name, f in kernel_functions(module).items()
    }
    value = draw(1, channels, 7, 7)
    assert_same(run(replace_kernels(module, functions), value.numpy()), network, value)


def test_other_kernels_are_left_alone() -> None:
    empty = tvm.tirx.PrimFunc([], tvm.tirx.Evaluate(0))
    assert start_from_residual(empty).same_as(empty)
