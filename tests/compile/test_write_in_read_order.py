"""A shuffled tensor is written in the order in which it is read: node counts, and numbers."""

from __future__ import annotations

import pytest
import torch
import tvm
from stages import (
    HOST,
    assert_module_is,
    bindings_of,
    count,
    imported,
    lowered,
    operator,
    seeded,
    shuffle_kernels,
    simplified,
    with_schedules,
)
from torch import nn
from torch.nn import functional

from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.write_in_read_order import write_in_read_order

ARM = Core(4, 32)


class Unit(nn.Module):
    """Pointwise, shuffle, depthwise, grouped pointwise; `first` groups in the first layer."""

    def __init__(self, groups: int, width: int, first: int | None = None, stride: int = 1) -> None:
        super().__init__()
        self.groups = groups
        wide = 2 * groups * width
        self.compress = nn.Conv2d(wide, groups * width, 1, groups=first or groups)
        self.norm = nn.BatchNorm2d(groups * width)
        self.depthwise = nn.Conv2d(
            groups * width, groups * width, 3, stride, 1, groups=groups * width
        )
        self.expand = nn.Conv2d(groups * width, wide, 1, groups=groups)

    def shuffled(self, x: torch.Tensor) -> torch.Tensor:
        return functional.channel_shuffle(x, self.groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.shuffled(functional.relu(self.norm(self.compress(x))))
        return functional.relu(self.expand(functional.relu6(self.depthwise(y)))).mean((2, 3))


class _ReadTwice(Unit):
    """The depthwise convolution's answer is read by another layer too, in the program's order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(self.shuffled(functional.relu(self.compress(x))))
        return torch.cat([self.expand(y), y], 1).mean((2, 3))


class _Widening(nn.Module):
    """One channel becomes twelve by an addition, and these are shuffled and read by groups."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 1, 1)
        self.offset = nn.Parameter(torch.arange(12.0).reshape(1, 12, 1, 1))
        self.grouped = nn.Conv2d(12, 12, 1, groups=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.channel_shuffle(torch.relu(self.one(x)) + self.offset, 3)
        return self.grouped(y).mean((2, 3))


def parameters(module: tvm.IRModule, kind: str) -> list[str]:
    """Names of the parameters of the kernels that read or write by a table."""
    functions = kernel_functions(module).values()
    return [p.name for f in functions for p in f.params if p.name == kind]


def before_depthwise(module: tvm.IRModule) -> list[str]:
    """Operators in the order of their calls, up to the depthwise convolution."""
    names = [operator(value).removeprefix("relax.") for _, value in bindings_of(module)]
    return names[: len(names) - 1 - names[::-1].index("nn.conv2d")]


@pytest.mark.smoke
@pytest.mark.parametrize(("groups", "width"), [(3, 10), (3, 20), (4, 6), (8, 4), (2, 5)])
def test_a_grouped_convolution_writes_for_the_next(groups: int, width: int) -> None:
    network, shape = seeded(Unit(groups, width)), (1, 2 * groups * width, 5, 6)
    graph = simplified(network, *shape)
    moved = write_in_read_order(graph, ARM)
    assert count(moved) == count(graph)
    # Before: take, then the last convolution. After: take, then the depthwise convolution.
    assert before_depthwise(graph)[-1] == "take"
    assert before_depthwise(moved)[-1] != "take"
    assert_module_is(moved, network, *shape)
    kernels = lowered(imported(network, *shape).module, ARM)
    assert not shuffle_kernels(kernels)
    assert parameters(kernels, "channels") == []
    assert parameters(kernels, "positions") == ["positions"]
    assert_module_is(with_schedules(kernels, ARM), network, *shape)


@pytest.mark.parametrize("core", [ARM, Core(16, 32)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_dense_convolution_has_its_weights_in_order(stride: int, core: Core) -> None:
    network, shape = seeded(Unit(3, 20, first=1, stride=stride)), (1, 120, 6, 6)
    moved = write_in_read_order(simplified(network, *shape), core)
    assert count(moved)["take"] == 0
    assert_module_is(moved, network, *shape)
    kernels = lowered(imported(network, *shape).module, core)
    assert parameters(kernels, "channels") == parameters(kernels, "positions") == []
    assert_module_is(with_schedules(kernels, core), network, *shape)


def test_runs_of_whole_vectors_are_read_as_they_lie() -> None:
    network, shape = seeded(Unit(2, 16)), (1, 64, 4, 4)
    graph = simplified(network, *shape)
    assert count(graph)["take"] == 1
    assert write_in_read_order(graph, ARM).same_as(graph)


def test_what_others_read_too_keeps_its_order() -> None:
    network, shape = seeded(_ReadTwice(3, 10)), (1, 60, 4, 5)
    kernels = lowered(imported(network, *shape).module, ARM)
    assert parameters(kernels, "positions") == []
    assert_module_is(with_schedules(kernels, ARM), network, *shape)


class _OneChannel(nn.Module):
    """A single channel is taken, and its axis with it: that is no order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)[:, -1] + 1.0


@pytest.mark.smoke
def test_a_single_channel_is_no_order() -> None:
    module = simplified(_OneChannel(), 1, 4, 3, 2)
    assert write_in_read_order(module, ARM).same_as(module)


def test_an_order_of_more_channels_than_a_layer_has_is_not_its() -> None:
    network, shape = seeded(_Widening()), (1, 4, 4, 5)
    assert_module_is(write_in_read_order(simplified(network, *shape), ARM), network, *shape)


def test_cores_that_pick_no_lanes_read_by_a_table() -> None:
    network, shape = seeded(Unit(3, 20)), (1, 120, 4, 5)
    graph = simplified(network, *shape)
    for core in (Core(16, 32), Core(8, 16), Core(4, 16)):
        assert write_in_read_order(graph, core).same_as(graph)
    kernels = lowered(imported(network, *shape).module, HOST.core)
    picks = HOST.core.multiplies_by_lane
    assert parameters(kernels, "positions" if picks else "channels")
