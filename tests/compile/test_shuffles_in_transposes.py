"""Transpositions read by a table what only they read: kernels counted, numbers compared."""

from __future__ import annotations

import torch
from stages import assert_module_is, imported, lowered, seeded, shuffle_kernels
from torch import Tensor, nn
from torch.nn import functional

from shuffledeploy.compiler.passes.graph.shuffles_in_transposes import shuffles_in_transposes
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls

SHAPE = (2, 6, 4, 5)


class Backbone(nn.Module):
    """A shuffled feature map is an answer; a running sum, which TVM computes, reads its pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 12, 1, groups=3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.channel_shuffle(self.conv(x), 3)
        return x, functional.avg_pool2d(x, 2).cumsum(3)


class ReadBesides(nn.Module):
    """What an operator reads as well as the transposition is written first."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        taken = x[:, :, :, torch.tensor([4, 2, 0, 1, 3])]
        return taken.permute(0, 2, 3, 1).contiguous(), taken.cumsum(1)


class Picked(nn.Module):
    """Along any axis, and by a table that picks some elements twice and others not at all."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x[:, :, torch.tensor([3, 3, 0])].permute(3, 0, 2, 1)
        return rows.contiguous(), x[:, torch.tensor([5, 1])].permute(0, 3, 2, 1).contiguous()


def _kernels(network: nn.Module, *without: str) -> tuple[object, list[str]]:
    module = lowered(imported(network, *SHAPE).module, without=without)
    return module, [name for _, name in kernel_calls(module)]


def test_a_shuffled_answer_costs_no_kernel_beside_its_transposition() -> None:
    network = seeded(Backbone())
    before, written = _kernels(network, "shuffles_in_transposes")
    after, fewer = _kernels(network)
    assert len(shuffle_kernels(before)) == 2
    assert shuffle_kernels(after) == []
    assert len(fewer) == len(written) - 2
    assert_module_is(after, network, *SHAPE)


def test_what_others_read_is_written_once() -> None:
    network = ReadBesides()
    module, names = _kernels(network)
    assert "shuffled_transposition" not in names
    assert_module_is(module, network, *SHAPE)


def test_any_axis_and_any_table() -> None:
    network = Picked()
    module, names = _kernels(network)
    assert sum(name.startswith("shuffled_transposition") for name in names) == 2
    assert_module_is(module, network, *SHAPE)


def test_a_module_without_such_transpositions_stays_as_it_is() -> None:
    module = lowered(imported(seeded(nn.Conv2d(6, 8, 1)), *SHAPE).module)
    assert shuffles_in_transposes(module) is module
