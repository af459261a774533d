"""Channel shuffles vanish from the graph, however they are written, and no number changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from shuffles import WAYS, Together, Unit, assert_gone, by_reshape, by_slices, by_view
from stages import assert_module_is, count, imported, lowered, seeded, shuffle_kernels, simplified
from torch import nn
from torch.nn import functional

from shuffledeploy.compiler.ir.inspection import kernel_functions, moves_only
from shuffledeploy.compiler.passes.graph.eliminate_channel_shuffle import count_shuffles
from shuffledeploy.compiler.passes.graph.fold_batch_norm import fold_batch_norm


def test_every_way_of_writing_it() -> None:
    network = Together([Unit(way) for way in WAYS])
    assert_gone(network, 1, 6, 4, 5, takes=len(WAYS))


def _shuffles(network: nn.Module) -> int:
    return count_shuffles(fold_batch_norm(imported(network.eval(), 1, 6, 4, 5).module))


def test_the_shuffles_of_a_program_are_counted_however_they_are_written() -> None:
    for way in WAYS:
        assert _shuffles(Unit(way)) == 1, way
    assert _shuffles(Together([Unit(way) for way in WAYS])) == len(WAYS)
    # A shuffle of one group moves nothing.
    assert _shuffles(Unit(shuffle_groups=1, channels=9)) == 0
    assert _shuffles(nn.Sequential(nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(80, 3))) == 0


@pytest.mark.smoke
def test_either_side_of_the_depthwise_convolution() -> None:
    network = Together([Unit(after_depthwise=after) for after in (False, True)])
    assert_gone(network, 1, 6, 4, 5, takes=2)


def test_groups_of_the_convolution_and_of_the_shuffle_may_differ() -> None:
    cases = [(3, 3, 30), (3, 10, 30), (2, 3, 12), (4, 2, 24), (3, 2, 24), (3, 1, 9)]
    units = [Unit(groups=g, shuffle_groups=s, channels=c) for g, s, c in cases]
    # A shuffle of one group moves nothing.
    assert_gone(Together(units), 1, 6, 3, 3, takes=len(cases) - 1)


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
    network = Together([Unit(between=make()) for make in BETWEEN])
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
    assert_gone(Together([_ShuffleNetUnit(1), _ShuffleNetUnit(2)]), 1, 6, 6, 6, takes=4)


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
    assert_gone(_SplitUnit(), 1, 3, 7, 7, takes=4)


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


class _NoShuffle(nn.Module):
    """Moves that are no shuffles: an answer in NCHW, a slice, heads, positions by a table."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 12, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.conv(x)
        positions = x.flatten(2).transpose(1, 2)
        heads = positions.reshape(1, 20, 3, 4).transpose(1, 2)
        few = positions.cumsum(2)[:, torch.tensor([0, 2, 3, 15])]
        return [x, x[:, :, 1:3].relu(), heads.softmax(-1), few]


def test_what_is_no_shuffle_is_not_counted_as_one() -> None:
    network = seeded(_NoShuffle())
    kernels = lowered(imported(network, 1, 6, 4, 5).module)
    assert any(moves_only(function) for function in kernel_functions(kernels).values())
    assert shuffle_kernels(kernels) == []
    assert_module_is(kernels, network, 1, 6, 4, 5)
