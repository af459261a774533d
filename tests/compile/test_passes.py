"""Each graph pass twice: what it leaves in the graph, and that no number changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stages import (
    HOST,
    assert_module_is,
    count,
    draw,
    imported,
    seeded,
    simplified,
)
from torch import nn
from torch.nn import functional

from shuffledeploy.compiler.ir.graph import bindings_of, operator
from shuffledeploy.compiler.passes.graph.absorb_flatten import absorb_flatten
from shuffledeploy.compiler.passes.graph.choose_layouts import choose_layouts
from shuffledeploy.compiler.passes.graph.data_movement import follow_movements
from shuffledeploy.compiler.passes.graph.fold_batch_norm import fold_batch_norm
from shuffledeploy.compiler.passes.graph.lower_to_kernels import lower_to_kernels
from shuffledeploy.compiler.passes.graph.simplify_pools import simplify_pools


class _Norms(nn.Module):
    """Batch norm in every place that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.biased = nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 6, 1)
        self.shared = nn.Conv2d(6, 6, 1, groups=2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(5))
        self.bare = nn.BatchNorm2d(6, affine=False, eps=0.1)
        self.linear, self.flat = nn.Linear(6, 4), nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.norms[0](self.plain(x)))
        x = self.norms[1](self.biased(x))
        y = self.shared(x)  # read twice: it must stay as it is
        x = self.norms[2](y) + y
        x = self.norms[4](self.norms[3](torch.relu(x)))
        return self.flat(self.linear(x.mean((2, 3)))), self.bare(x)


@pytest.mark.smoke
def test_batch_norm_folds_into_the_convolution_before_it() -> None:
    network = seeded(_Norms())
    module = imported(network, 1, 3, 5, 6).module
    assert count(module)["nn.batch_norm"] == 7
    folded = fold_batch_norm(module)
    after = count(folded)
    assert after["nn.batch_norm"] == 0
    # Two vanish into weights; of those that cannot, each is one product and one sum.
    assert after["multiply"] == 5
    assert after["permute_dims"] == after["reshape"] == 0
    assert_module_is(folded, network, 1, 3, 5, 6)


def test_batch_norm_of_other_types_and_ranks() -> None:
    class Ranks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.three = nn.BatchNorm1d(4), nn.BatchNorm3d(2)
            self.conv = nn.Conv2d(4, 4, 1)
            self.two = nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            line = x.reshape(2, 4, 6)
            return [self.one(line), self.three(x.reshape(2, 2, 2, 2, 3)), self.two(self.conv(x))]

    network = seeded(Ranks())
    assert_module_is(fold_batch_norm(imported(network, 2, 4, 2, 3).module), network, 2, 4, 2, 3)


def test_movements_are_followed_element_by_element() -> None:
    class Moves(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            n, c, h, w = x.shape
            shuffled = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
            a, b = shuffled.split([2, 4], 1)
            return [
                shuffled, torch.cat([b, a], 1), x[:, 1:5:2], x.flip(1), x.permute(0, 2, 3, 1),
                torch.stack([a, x[:, :2]], 2).flatten(1, 2), x[:, :, 1:], torch.relu(x) + 0.0,
            ]  # fmt: skip

    network = Moves()
    module = fold_batch_norm(imported(network, 2, 6, 3, 2).module)
    value = draw(2, 6, 3, 2)
    found = follow_movements(module)
    # The identity of the variable is lost in a tuple: compare by shape and content.
    moved = [m.elements for m in found.values() if m.source.same_as(module["main"].params[0])]
    for expected in network(value)[:-1]:
        assert any(
            elements.shape == expected.shape
            and np.array_equal(value.numpy().reshape(-1)[elements], expected.numpy())
            for elements in moved
        )
    orders = [order.tolist() for m in found.values() if (order := m.channel_order()) is not None]
    assert [0, 2, 4, 1, 3, 5] in orders
    assert [4, 1, 3, 5, 0, 2] in orders
    assert [1, 3] in orders
    assert not any(m.channel_order() is not None for m in found.values() if m.elements.ndim == 5)


class _Between(nn.Module):
    """Operators that `ConvertLayout` has rules for, and some that it has none for."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(7))
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 4).reshape(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self.convs[0](x))
        x = functional.hardtanh(self.convs[1](x), -0.5, 0.7)
        x = functional.leaky_relu(self.convs[2](x), 0.1) * self.scale
        x = torch.sigmoid(self.convs[3](x)) + x
        x = functional.hardswish(self.convs[4](x))[:, [2, 0, 3, 1]]
        x = functional.max_pool2d(self.convs[5](x), 2)
        x = torch.cat([x.clamp(min=0.1), torch.tanh(x), x[:, 1:3].exp()], 1)
        x = functional.max_pool2d(x, 2, 1, 1) - functional.avg_pool2d(x, (2, 2), (1, 1), (1, 1))
        return x.mean((-1, -2), keepdim=True).sum((2, 3))


def test_channels_go_last_and_stay_there() -> None:
    network = seeded(_Between())
    module = choose_layouts(simplified(network, 1, 4, 6, 7))
    assert count(module)["permute_dims"] == 1  # the network's own input
    assert 'layout="NCHW"' not in module.script()
    assert_module_is(module, network, 1, 4, 6, 7)


def test_a_network_without_convolutions_keeps_its_layout() -> None:
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.max_pool2d(torch.relu(x).clamp(max=0.5), 2)

    module = choose_layouts(simplified(Plain(), 1, 4, 6, 6))
    assert count(module)["permute_dims"] == 0
    assert_module_is(module, Plain(), 1, 4, 6, 6)


def test_a_flattened_map_is_read_as_it_lies() -> None:
    class Classifier(nn.Module):
        def __init__(self, keep: bool) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 5, 2), nn.Linear(5 * 12, 7)
            self.keep = keep

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = functional.adaptive_avg_pool2d(self.conv(x), (3, 4))
            answer = self.linear(x.flatten(1))
            return (answer, x) if self.keep else (answer,)

    for keep in (False, True):
        network = seeded(Classifier(keep))
        module = simplify_pools(absorb_flatten(choose_layouts(simplified(network, 1, 3, 4, 5))))
        # The map itself, where it is an answer, must be turned back.
        assert count(module)["permute_dims"] == 1 + keep
        assert count(module)["nn.adaptive_avg_pool2d"] == 0
        assert_module_is(module, network, 1, 3, 4, 5)


def test_adaptive_pools_become_plain_where_their_windows_are_alike() -> None:
    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 1)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            x = self.conv(x)
            sizes = [(6, 8), (3, 4), (2, 8), (1, 1), (4, 4), (6, 5)]
            return [functional.adaptive_avg_pool2d(x, size) for size in sizes]

    network = seeded(Pools())
    module = simplify_pools(choose_layouts(simplified(network, 1, 2, 6, 8)))
    after = count(module)
    assert (after["nn.adaptive_avg_pool2d"], after["nn.avg_pool2d"]) == (2, 2)
    assert_module_is(module, network, 1, 2, 6, 8)


class _RoundingPools(nn.Module):
    """Pools that round up; the last counts padding, and stays."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.conv(x)
        return [
            functional.max_pool2d(x, 3, 2, ceil_mode=True),
            functional.max_pool2d(x, (2, 3), (3, 2), (1, 0), ceil_mode=True),
            functional.max_pool2d(x, 2, 3, 0, dilation=2, ceil_mode=True),
            functional.avg_pool2d(x, 3, 2, ceil_mode=True),
            functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        ]


def test_pools_that_round_up_have_padding_there() -> None:
    network = seeded(_RoundingPools())
    module = simplify_pools(choose_layouts(simplified(network, 1, 2, 6, 8)))
    rounding = [v for _, v in bindings_of(module) if "pool2d" in operator(v) and v.attrs.ceil_mode]
    assert [operator(value) for value in rounding] == ["relax.nn.avg_pool2d"]
    assert_module_is(module, network, 1, 2, 6, 8)
    assert count(lower_to_kernels(module, HOST.core))["nn.max_pool2d"] == 0


class _Epilogues(nn.Module):
    """One convolution for each thing that can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, 1, 1, bias=i % 2 == 0) for i in range(9))
        self.depthwise = nn.Conv2d(4, 4, 3, 1, 1, groups=4)
        self.linear = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c = self.convs
        x = torch.relu(c[0](x))  # bias, relu
        x = functional.relu6(c[1](x) + x)  # residual, clip
        x = torch.relu(c[2](x) + x).clamp(0.1, 0.9)  # bias, residual, relu, clip
        x = c[3](x) + c[4](x)  # a residual of two convolutions
        y = c[5](x)  # read twice: by what is added to it again
        x = torch.relu(y) + y
        x = torch.relu(c[6](x) + c[6](x).clamp(max=2.0))
        x = functional.relu6(self.depthwise(x) + x) + 0.25
        x = torch.relu(torch.cat([x, c[8](x)], 1))[:, 2:6] + x
        return torch.relu(self.linear(functional.avg_pool2d(x, 5).flatten(1)))


def test_what_follows_rides_on_the_kernel() -> None:
    network = seeded(_Epilogues())
    before = choose_layouts(simplified(network, 1, 4, 5, 5))
    module = lower_to_kernels(before, HOST.core)
    after = count(module)
    left = {name: after[name] for name in ("nn.relu", "add", "clip", "nn.conv2d", "concat")}
    assert left == {"nn.relu": 0, "add": 0, "clip": 0, "nn.conv2d": 0, "concat": 0}
    assert_module_is(module, network, 1, 4, 5, 5)


def test_a_kernel_reads_an_order_and_writes_no_take() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(6, 30, 1, groups=3), nn.Conv2d(30, 9, 3, groups=3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = functional.channel_shuffle(self.a(x), 3)
            return self.b(x).mean((2, 3))

    network = seeded(Shuffled())
    before = choose_layouts(simplified(network, 1, 6, 4, 5))
    assert count(before)["take"] == 1
    module = lower_to_kernels(before, HOST.core)
    assert count(module)["take"] == 0
    assert count(module)["call_tir"] == 3
    assert_module_is(module, network, 1, 6, 4, 5)
