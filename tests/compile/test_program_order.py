"""Where a shuffle cannot vanish, or is none, the program's order comes back with its numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from shuffles import Unit, by_reshape
from stages import assert_module_is, count, imported, lowered, seeded, shuffle_kernels, simplified
from torch import nn
from torch.nn import functional


def test_a_shuffle_at_the_end_gives_the_program_order() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(6, 12, 3, groups=3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.conv(x).mean((2, 3))
            return x.view(1, 3, 4).transpose(1, 2).reshape(1, 12), x

    network = seeded(Last())
    graph = simplified(network, 1, 6, 4, 5)
    assert count(graph)["take"] == 1
    assert_module_is(graph, network, 1, 6, 4, 5)
    kernels = lowered(imported(network, 1, 6, 4, 5).module)
    assert len(shuffle_kernels(kernels)) == 1
    assert_module_is(kernels, network, 1, 6, 4, 5)


SELECTIONS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda x: x[:, 2:8],
    lambda x: x[:, ::2],
    lambda x: by_reshape(x, 3)[:, 3:9],
    lambda x: torch.index_select(x, 1, torch.tensor([3, 3, 0, 11, 7, 0])),
    lambda x: torch.cat([x[:, 9:], x[:, :3]], 1),
    lambda x: x.flip(1)[:, :6],
]


def test_selections_are_read_by_a_grouped_convolution() -> None:
    class Selecting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(4, 12, 1)
            self.b = nn.ModuleList(nn.Conv2d(6, 8, 3, groups=2) for _ in SELECTIONS)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            x = self.a(x)
            pairs = zip(self.b, SELECTIONS, strict=True)
            return [conv(choose(x)).mean((2, 3)) for conv, choose in pairs]

    network = seeded(Selecting())
    assert_module_is(simplified(network, 1, 4, 4, 5), network, 1, 4, 4, 5)
    kernels = lowered(imported(network, 1, 4, 4, 5).module)
    assert shuffle_kernels(kernels) == []
    assert_module_is(kernels, network, 1, 4, 4, 5)


MIXES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    # Spatial moves, moves between channels and pixels: no shuffles.
    lambda x: x.transpose(2, 3),
    lambda x: functional.pixel_shuffle(x, 2),
    lambda x: functional.pixel_unshuffle(x, 2),
    lambda x: by_reshape(x, 3).transpose(2, 3),
    lambda x: x.reshape(1, 12, 8, 2),
    lambda x: x.roll(1, 3),
    lambda x: x.flip(2),
    # What no rule crosses reads the program's order.
    lambda x: by_reshape(x, 3).softmax(1),
    lambda x: by_reshape(x, 3) * by_reshape(x, 3).mean((2, 3), keepdim=True),
    lambda x: by_reshape(x, 3) + torch.linspace(0, 1, 4),
    lambda x: by_reshape(x, 3) + torch.linspace(0, 1, 12 * 16).reshape(12, 4, 4),
    lambda x: torch.linspace(0, 1, 12 * 2).reshape(2, 1, 12, 1, 1) * by_reshape(x, 3),
    lambda x: by_reshape(x, 3).mean((2, 3)) + torch.linspace(0, 1, 12),
    lambda x: by_reshape(x, 3).mean((2, 3)) + torch.linspace(0, 1, 24).reshape(2, 1, 12),
    lambda x: by_reshape(x, 3).mean(1),
    lambda x: by_reshape(x, 3).mean((1, 2)),
    lambda x: torch.cat([by_reshape(x, 3), x], 2),
    lambda x: torch.cat([by_reshape(x, 3)[:, :5], x], -3),
    lambda x: torch.where(x > 0, by_reshape(x, 3), x),
    lambda x: functional.interpolate(by_reshape(x, 3), scale_factor=2),
    lambda x: functional.layer_norm(by_reshape(x, 3), (4, 4)),
    lambda x: functional.pad(by_reshape(x, 3), (1, 0, 0, 2)),
    lambda x: by_reshape(x, 3).split([5, 7], 1)[1] * 2,
]


def test_what_is_no_shuffle_or_crosses_none_keeps_its_numbers() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 1)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            x = self.conv(x)
            return [mix(x) for mix in MIXES]

    network = seeded(Mixing())
    assert_module_is(lowered(imported(network, 1, 3, 4, 4).module), network, 1, 3, 4, 4)


def test_batches_are_shuffled_each_by_itself() -> None:
    network = seeded(Unit())
    graph = simplified(network, 3, 6, 4, 5)
    assert count(graph)["permute_dims"] == 0
    assert_module_is(graph, network, 3, 6, 4, 5)
