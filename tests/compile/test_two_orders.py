"""Where tensors in two orders of channels meet: takes and kernels counted, numbers compared."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest
import torch
from shuffles import by_reshape
from stages import (
    HOST,
    QUICK,
    assert_module_is,
    assert_same,
    assert_same_bits,
    count,
    draw,
    imported,
    lowered,
    seeded,
    shuffle_kernels,
    simplified,
    with_schedules,
)
from strip_networks import SMALL
from torch import Tensor, nn
from torch.nn import functional

from shuffledeploy.compiler.ir.attributes import kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.library_facts import strip_calls
from shuffledeploy.compiler.passes.graph.write_in_read_order import write_in_read_order
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.compute_on_threads import compute_on_threads
from shuffledeploy.compiler.passes.memory.expose_intermediates import expose_intermediates
from shuffledeploy.compiler.passes.memory.join_in_place import join_in_place
from shuffledeploy.compiler.passes.memory.residual_in_place import residual_in_place
from shuffledeploy.compiler.shuffles_left import shuffles_left

ARM = Core(4, 32)
WIDE = 12
SHAPE = (1, 6, 5, 6)


class _Meeting(nn.Module, ABC):
    """A shuffled tensor of a grouped convolution meets one of a dense convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.compress = nn.Conv2d(6, WIDE, 1, groups=3)
        self.beside = nn.Conv2d(6, WIDE, 3, padding=1)
        self.depthwise = nn.Conv2d(WIDE, WIDE, 3, padding=1, groups=WIDE)
        self.expand = nn.Conv2d(WIDE, 8, 1)

    def shuffled(self, x: Tensor) -> Tensor:
        return by_reshape(torch.relu(self.compress(x)), 3)

    @abstractmethod
    def meet(self, x: Tensor) -> Tensor:
        """Let the two orders meet in a tensor of `WIDE` channels."""

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.meet(x)).mean((2, 3))


class MergedAndEvolved(_Meeting):
    """MENet's unit: what is shuffled is multiplied with what dense layers made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.merge, self.evolve = nn.Conv2d(WIDE, 4, 1), nn.Conv2d(4, WIDE, 1)
        self.evolve_norm = nn.BatchNorm2d(WIDE)
        self.expand = nn.Conv2d(WIDE, 9, 1, groups=3)

    def meet(self, x: Tensor) -> Tensor:
        x = self.shuffled(x)
        scale = torch.sigmoid(self.evolve_norm(self.evolve(torch.relu(self.merge(x)))))
        return self.depthwise(x) * scale


class Added(_Meeting):
    """A residual: the dense convolution's answer is added to the shuffled tensor."""

    def meet(self, x: Tensor) -> Tensor:
        return torch.relu(self.beside(x) + self.shuffled(x))


class ShuffledIsDense(_Meeting):
    """Of two that can move the shuffled one does, behind a pool and a depthwise convolution."""

    def meet(self, x: Tensor) -> Tensor:
        y = functional.avg_pool2d(by_reshape(self.beside(x), 3), 3, 1, 1)
        return self.compress(x) + torch.relu(self.depthwise(y)) * 2.0


class SumOfTwo(_Meeting):
    """The tensor that moves is a sum of two that nobody else reads."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(6, WIDE, 1)

    def meet(self, x: Tensor) -> Tensor:
        return self.shuffled(x) * (self.beside(x) + torch.tanh(self.other(x)))


class ReadTwice(_Meeting):
    """The dense convolution's answer is read elsewhere, too: its order stays."""

    def meet(self, x: Tensor) -> Tensor:
        y = self.beside(x)
        return torch.cat([self.shuffled(x) + y, y], 1)[:, :WIDE]


class OfOneTensor(_Meeting):
    """One tensor in two orders: no writer can serve both."""

    def meet(self, x: Tensor) -> Tensor:
        x = torch.relu(self.compress(x))
        return x + by_reshape(x, 3)


class _Together(nn.Module):
    """Two of the networks whose kernels read by tables."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.ModuleList([OfOneTensor(), Selected()])

    def forward(self, x: Tensor) -> list[Tensor]:
        return [network(x) for network in self.both]


@pytest.mark.parametrize("core", [ARM, HOST.core])
@pytest.mark.parametrize("network", [MergedAndEvolved, Added, ShuffledIsDense, SumOfTwo])
def test_the_writers_of_one_of_them_write_in_the_order_of_the_other(
    network: type[_Meeting], core: Core
) -> None:
    made = seeded(network())
    graph = write_in_read_order(simplified(made, *SHAPE), core)
    # The last convolution of MENet's unit reads by groups.
    assert count(graph)["take"] == (network is MergedAndEvolved)
    assert_module_is(graph, made, *SHAPE)
    kernels = lowered(imported(made, *SHAPE).module, core)
    assert shuffle_kernels(kernels) == []
    assert_module_is(with_schedules(kernels, core), made, *SHAPE)


class Windows(_Meeting):
    """A pool's epilogue reads the shuffled tensor, and so does one of a concatenation."""

    def meet(self, x: Tensor) -> Tensor:
        x = torch.relu(self.compress(x))
        y = functional.max_pool2d(x, 3, 1, 1) - by_reshape(x, 3)
        return torch.relu(torch.cat([x[:, :4], y[:, 4:]], 1) * by_reshape(y, 4))


class Selected(_Meeting):
    """CondenseNet's learned groups: a norm of channels of which some are read twice, some never."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(WIDE)
        self.grouped = nn.Conv2d(WIDE, WIDE, 1, groups=4)
        self.register_buffer("index", torch.tensor([3, 3, 0, 11, 7, 5, 3, 1, 10, 11, 8, 2]))

    def meet(self, x: Tensor) -> Tensor:
        x = torch.cat([self.beside(x), self.compress(x)], 1)
        for _ in range(2):
            y = torch.relu(self.norm(torch.index_select(x, 1, self.index)))
            x = torch.cat([by_reshape(self.grouped(y), 4), x], 1)
        return x[:, :WIDE]


@pytest.mark.parametrize("core", [ARM, HOST.core])
@pytest.mark.parametrize("network", [ReadTwice, OfOneTensor, Windows, Selected])
def test_where_no_writer_can_change_who_computes_with_it_reads_by_a_table(
    network: type[_Meeting], core: Core
) -> None:
    made = seeded(network())
    kernels = lowered(imported(made, *SHAPE).module, core)
    functions = kernel_functions(kernels)
    assert all(kind_of(function) for function in functions.values())
    assert shuffle_kernels(kernels) == []
    assert_module_is(with_schedules(kernels, core), made, *SHAPE)


class _Pooled(nn.Module):
    """A linear layer reads some of the means, by a table; a running sum has all in order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(6, WIDE, 1, groups=3), nn.Linear(8, 5)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = by_reshape(torch.relu(self.conv(x)), 3)
        chosen = x.mean((2, 3))[:, [11, 3, 3, 5, 7, 1, 0, 2]]
        return self.linear(chosen), self.pool(x).mean((2, 3)).cumsum(1)


@pytest.mark.parametrize("core", [ARM, HOST.core])
def test_a_linear_layer_reads_some_channels_by_a_table(core: Core) -> None:
    made = seeded(_Pooled())
    kernels = lowered(imported(made, *SHAPE).module, core)
    (name,) = shuffle_kernels(kernels)
    assert_module_is(with_schedules(kernels, core), made, *SHAPE)
    (sentence,) = shuffles_left(kernels)
    assert sentence == (
        f"{name} between mean_12_1x11 and running: "
        "the one writes in the order in which it reads, and TVM's own rules made the other"
    )


class _LastStep(nn.Module):
    """A linear layer reads the last step of a sequence: one index, whose axis is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(x)[:, -1])


def test_a_single_index_is_no_table_of_channels() -> None:
    made = seeded(_LastStep())
    assert_module_is(lowered(imported(made, 1, 5, 4).module), made, 1, 5, 4)


class _Unwritten(nn.Module):
    """Shuffled are an input and one of two tensors that a kernel by TVM's own rules writes."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return by_reshape(x, 3), by_reshape(torch.sort(x, 1).values, 2)


def test_it_is_told_who_writes_in_an_order_of_its_own() -> None:
    kernels = lowered(imported(_Unwritten(), *SHAPE).module)
    first, second = shuffles_left(kernels)
    assert first.endswith("its order is the program's, and an answer has the program's order")
    assert "between an input and an answer:" in first
    assert second.endswith("TVM's own rules made the one, and an answer has the program's order")
    assert_module_is(kernels, _Unwritten(), *SHAPE)


def test_tables_are_read_in_batches_strips_and_by_threads() -> None:
    made, value = seeded(_Together()), draw(2, 6, 40, 32)
    unscheduled = lowered(imported(made, 2, 6, 40, 32).module)
    layers, functions = with_schedules(unscheduled), kernel_functions(unscheduled)
    placed = join_in_place(expose_intermediates(layers), functions)
    strips = residual_in_place(compute_in_strips(placed, functions, SMALL))
    assert any("elementwise" in name for call in strip_calls(strips) for name in call.kernels)
    assert_same(assert_same_bits(layers, strips, value.numpy(), target=QUICK), made, value)
    shared = compute_on_threads(residual_in_place(placed), threads=2, fetches=False)
    assert_same_bits(layers, shared, value.numpy(), target=QUICK)
