"""Channel shuffles as networks write them, and what is checked of a network that has some."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from stages import (
    MOVES,
    assert_module_is,
    count,
    imported,
    lowered,
    seeded,
    shuffle_kernels,
    simplified,
)
from torch import nn
from torch.nn import functional

Shuffle = Callable[[torch.Tensor, int], torch.Tensor]


def by_reshape(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Shuffle as the paper writes it: (g, n) to (n, g)."""
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def by_view(x: torch.Tensor, groups: int) -> torch.Tensor:
    n, _, h, w = x.shape
    return x.view(n, groups, -1, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def by_flat_view(x: torch.Tensor, groups: int) -> torch.Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, groups, c // groups, h * w).permute(0, 2, 1, 3)
    return x.flatten(1, 2).unflatten(2, (h, w))


def by_einops(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Shuffle as einops does "b (g n) h w -> b (n g) h w", batch and pixels moved apart."""
    n, c, h, w = x.shape
    pixels_first = x.permute(0, 2, 3, 1).reshape(n, h, w, groups, c // groups)
    return pixels_first.permute(0, 4, 3, 1, 2).reshape(n, c, h, w)


def by_stack(x: torch.Tensor, groups: int) -> torch.Tensor:
    return torch.stack(x.chunk(groups, 1), 2).flatten(1, 2)


def by_split(x: torch.Tensor, groups: int) -> torch.Tensor:
    size = x.shape[1] // groups
    pieces = [piece.split(1, 1) for piece in x.split(size, 1)]
    return torch.cat([pieces[g][i] for i in range(size) for g in range(groups)], 1)


def by_index(x: torch.Tensor, groups: int) -> torch.Tensor:
    order = torch.arange(x.shape[1]).reshape(groups, -1).t().reshape(-1)
    return torch.index_select(x, 1, order)


def by_constant_index(x: torch.Tensor, groups: int) -> torch.Tensor:
    size = x.shape[1] // groups
    order = [group * size + i for i in range(size) for group in range(groups)]
    return x[:, order]


def by_slices(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Shuffle in the other direction, (n, g) to (g, n): every n-th channel comes together."""
    return torch.cat([x[:, i::groups] for i in range(groups)], 1)


def by_torch(x: torch.Tensor, groups: int) -> torch.Tensor:
    return functional.channel_shuffle(x, groups)


WAYS = [by_reshape, by_view, by_flat_view, by_einops, by_stack, by_split, by_index,
        by_constant_index, by_slices, by_torch]  # fmt: skip


class Unit(nn.Module):
    """Grouped pointwise, shuffle, depthwise, grouped pointwise, with a choice of places."""

    def __init__(
        self,
        shuffle: Shuffle = by_reshape,
        groups: int = 3,
        shuffle_groups: int = 3,
        channels: int = 12,
        after_depthwise: bool = False,
        between: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.shuffle, self.shuffle_groups = shuffle, shuffle_groups
        self.after_depthwise = after_depthwise
        self.reduce = nn.Conv2d(6, channels, 1, groups=groups if 6 % groups == 0 else 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.between = between or nn.ReLU()
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(channels)
        self.expand = nn.Conv2d(channels, 2 * channels, 1, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.reduce(x))
        if not self.after_depthwise:
            x = self.shuffle(x, self.shuffle_groups)
        x = self.depthwise_norm(self.depthwise(self.between(x)))
        if self.after_depthwise:
            x = self.shuffle(x, self.shuffle_groups)
        # The mean keeps a channel's place, and spares the transpose of a map that is the answer.
        return self.expand(x).mean((2, 3))


def assert_gone(network: nn.Module, *shape: int, takes: int) -> None:
    """Check operators, kernels and numbers of a network whose shuffles feed convolutions."""
    seeded(network)
    program = imported(network, *shape)
    before = count(program.module)
    assert sum(before[name.removeprefix("relax.")] for name in MOVES) > 0
    graph = simplified(network, *shape)
    after = count(graph)
    assert after["take"] == takes
    assert not any(after[name] for name in ("permute_dims", "strided_slice", "split", "stack"))
    assert_module_is(graph, network, *shape)
    kernels = lowered(program.module)
    assert shuffle_kernels(kernels) == []
    assert_module_is(kernels, network, *shape)


class Together(nn.Module):
    """Several networks on one input: one import and one library for all of them."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [network(x) for network in self.networks]
