"""Channel shuffles vanish from the graph, however they are written, and no number changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
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


def assert_gone(network: nn.Module, *shape: int, takes: int, run_graph: bool = False) -> None:
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


class _Together(nn.Module):
    """Several networks on one input: one import and one library for all of them."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [network(x) for network in self.networks]


def test_every_way_of_writing_it() -> None:
    network = _Together([Unit(way) for way in WAYS])
    assert_gone(network, 1, 6, 4, 5, takes=len(WAYS), run_graph=True)


@pytest.mark.smoke
def test_either_side_of_the_depthwise_convolution() -> None:
    network = _Together([Unit(after_depthwise=after) for after in (False, True)])
    assert_gone(network, 1, 6, 4, 5, takes=2, run_graph=True)


def test_groups_of_the_convolution_and_of_the_shuffle_may_differ() -> None:
    cases = [(3, 3, 30), (3, 10, 30), (2, 3, 12), (4, 2, 24), (3, 2, 24), (3, 1, 9)]
    units = [Unit(groups=g, shuffle_groups=s, channels=c) for g, s, c in cases]
    # A shuffle of one group moves nothing.
    assert_gone(_Together(units), 1, 6, 3, 3, takes=len(cases) - 1)


def test_a_dense_convolution_takes_the_order_into_its_weights() -> None:
    assert_gone(Unit(groups=1), 1, 6, 4, 5, takes=0)


class _Constants(nn.Module):
    """Elementwise operations with one number a channel, on either side."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("channels", torch.linspace(-1.0, 1.0, 12).reshape(1, -1, 1, 1))
        self.register_buffer("plane", torch.linspace(1.0, 3.0, 12).reshape(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.minimum(1.5 - x * self.channels, self.plane)
        return x / 2.0 - self.channels


BETWEEN: list[Callable[[], nn.Module]] = [
    nn.ReLU6, nn.SiLU, lambda: nn.LeakyReLU(0.2), nn.Hardswish, nn.Sigmoid, nn.GELU, nn.ELU,
    lambda: nn.Hardtanh(-1, 2), lambda: nn.MaxPool2d(2, 1), lambda: nn.AvgPool2d(3, 2, 1),
    lambda: nn.BatchNorm2d(12), _Constants, nn.Identity, nn.Dropout,
    lambda: nn.AdaptiveAvgPool2d(2), lambda: nn.Conv2d(12, 12, 2, groups=12),
    lambda: nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.BatchNorm2d(12), nn.ReLU()),
]  # fmt: skip


def test_operations_between_are_crossed() -> None:
    network = _Together([Unit(between=make()) for make in BETWEEN])
    assert_gone(network, 1, 6, 6, 6, takes=len(BETWEEN))


def test_a_depthwise_convolution_with_a_multiplier_is_crossed() -> None:
    class Wide(Unit):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(12, 24, 3, groups=12)
            self.depthwise_norm, self.expand = nn.BatchNorm2d(24), nn.Conv2d(24, 8, 1, groups=2)

    assert_gone(Wide(), 1, 6, 4, 5, takes=1)


def test_shuffle_and_its_inverse_leave_nothing() -> None:
    class Twice(Unit):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = by_reshape(torch.relu(self.reduce(x)), 3)
            return self.expand(by_reshape(self.depthwise(x), 4)).mean((2, 3))

    assert_gone(Twice(), 1, 6, 4, 4, takes=0)


class _Heads(nn.Module):
    """A shuffle before the mean and the linear layer, the mean written in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 12, 1, groups=3)
        self.linear = nn.ModuleList(nn.Linear(12, 5) for _ in MEANS)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = by_reshape(self.conv(x), 3)
        return [linear(mean(x)) for linear, mean in zip(self.linear, MEANS, strict=True)]


MEANS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda x: x.mean((2, 3)),
    lambda x: x.mean((-1, -2)),
    lambda x: x.mean((2, 3), keepdim=True).flatten(1),
    lambda x: functional.adaptive_avg_pool2d(x, 1).flatten(1),
    lambda x: functional.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
    lambda x: functional.adaptive_avg_pool2d(x, 1)[:, :, 0, 0],
    lambda x: functional.avg_pool2d(x, (4, 5)).view(1, -1),
    lambda x: x.sum((2, 3)),
    lambda x: functional.max_pool2d(x, (4, 5)).reshape(1, -1),
]


def test_a_linear_layer_takes_the_order_into_its_weights() -> None:
    assert_gone(_Heads(), 1, 6, 4, 5, takes=0)


def test_a_shuffle_behind_the_flattened_mean() -> None:
    class Late(_Heads):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            pooled = functional.adaptive_avg_pool2d(self.conv(x), 1)
            return [self.linear[0](by_reshape(pooled, 3).flatten(1))]

    assert_gone(Late(), 1, 6, 4, 5, takes=0)


def test_flattened_pixels_keep_the_program_order() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(6, 12, 1, groups=3), nn.Linear(12 * 6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(by_reshape(self.conv(x), 3).flatten(1))

    network = seeded(Flat())
    graph = simplified(network, 1, 6, 2, 3)
    assert_module_is(graph, network, 1, 6, 2, 3)
    assert_module_is(lowered(imported(network, 1, 6, 2, 3).module), network, 1, 6, 2, 3)


class _MapUnit(Unit):
    """The same, answering with its feature map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shuffle(torch.relu(self.norm(self.reduce(x))), self.shuffle_groups)
        return self.expand(self.depthwise_norm(self.depthwise(x)))


class _ShuffleNetUnit(nn.Module):
    """Two units of ShuffleNet V1, the first of stride 1 or 2."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.stem = nn.Conv2d(6, 24, 1)
        self.first, self.second = _MapUnit(channels=12), _MapUnit(channels=12)
        self.first.reduce = nn.Conv2d(24, 12, 1, groups=3)
        self.second.reduce = nn.Conv2d(48 if stride == 2 else 24, 12, 1, groups=3)
        self.first.depthwise.stride = (stride, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.first(x)
        if self.stride == 2:
            x = torch.relu(torch.cat([functional.avg_pool2d(x, 3, 2, 1), y], 1))
            return self.second(x).mean((2, 3))
        x = torch.relu(x + y)
        return torch.relu(x + self.second(x)).mean((2, 3))


def test_units_of_shufflenet_v1() -> None:
    assert_gone(
        _Together([_ShuffleNetUnit(1), _ShuffleNetUnit(2)]), 1, 6, 6, 6, takes=4, run_graph=True
    )


class _SplitUnit(nn.Module):
    """Two units of ShuffleNet V2: split, a branch, concat, shuffle; closed by a dense layer."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        half = channels // 2
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
                nn.Conv2d(half, half, 3, 1, 1, groups=half), nn.Conv2d(half, half, 1), nn.ReLU(),
            )
            for _ in range(2)
        )  # fmt: skip
        self.stem, self.last = nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for branch in self.branches:
            kept, worked = x.chunk(2, 1)
            x = by_view(torch.cat([kept, branch(worked)], 1), 2)
        return self.last(x).mean((2, 3))


def test_units_of_shufflenet_v2() -> None:
    # What is left: each branch's first convolution and each concatenation read a choice.
    assert_gone(_SplitUnit(), 1, 3, 7, 7, takes=4, run_graph=True)


class _Residual(nn.Module):
    """A residual around a shuffle: the sum wants both sides in one order."""

    def __init__(self, alike: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 12, 1, groups=3), nn.Conv2d(12, 12, 1, groups=3)
        self.alike = alike

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        shuffled = by_reshape(x, 3)
        other = by_reshape(torch.relu(x), 3) if self.alike else x
        return self.second(shuffled + other).mean((2, 3))


def test_a_sum_of_two_alike_orders_stays_in_it() -> None:
    assert_gone(_Residual(alike=True), 1, 6, 4, 4, takes=1)


def test_a_sum_that_needs_the_program_order_gets_it() -> None:
    network = seeded(_Residual(alike=False))
    graph = simplified(network, 1, 6, 4, 4)
    assert count(graph)["take"] == 1
    assert_module_is(graph, network, 1, 6, 4, 4)
    assert_module_is(lowered(imported(network, 1, 6, 4, 4).module), network, 1, 6, 4, 4)


class _Concat(nn.Module):
    """A shuffled and a straight tensor, joined, read by a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 12, 1, groups=3), nn.Conv2d(6, 6, 1)
        self.last = nn.Conv2d(18, 9, 3, padding=1, groups=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([by_reshape(self.a(x), 3), torch.relu(self.b(x))], 1)
        return self.last(by_slices(torch.relu(joined), 2)).mean((2, 3))


def test_concatenation_joins_the_orders() -> None:
    assert_gone(_Concat(), 1, 6, 4, 4, takes=1)


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


@pytest.mark.smoke
def test_without_the_pass_every_shuffle_is_a_kernel() -> None:
    network = seeded(_ShuffleNetUnit(stride=1))
    program = imported(network, 1, 6, 6, 6)
    # Without layouts too: their transposes would fuse with those of the shuffles.
    without = ["eliminate_channel_shuffle", "choose_layouts"]
    kernels = lowered(program.module, without=without)
    assert len(shuffle_kernels(kernels)) == 2
    assert_module_is(kernels, network, 1, 6, 6, 6)
    assert len(shuffle_kernels(lowered(program.module, without=without[:1]))) >= 2
