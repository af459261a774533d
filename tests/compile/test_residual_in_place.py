"""Sums written over residuals: nodes counted, numbers compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import tvm
from stages import (
    HOST,
    assert_same,
    assert_same_bits,
    bindings_of,
    draw,
    imported,
    lowered,
    operator,
    run,
    seeded,
    with_schedules,
)
from strip_networks import SMALL, Units
from torch import nn
from tvm import relax

from shuffledeploy.compiler.ir.attributes import kernel_of
from shuffledeploy.compiler.ir.graph import called_kernel
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.library_facts import strip_calls
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.expose_intermediates import (
    INTERMEDIATES,
    expose_intermediates,
)
from shuffledeploy.compiler.passes.memory.residual_in_place import residual_in_place

SHAPE = (1, 3, 29, 21)

Layer = Callable[[torch.Tensor], torch.Tensor]
Forward = Callable[[torch.Tensor, Layer, Layer], torch.Tensor | list[torch.Tensor]]


def kernels_called(module: tvm.IRModule) -> list[str]:
    """Names of the kernels that the entry function calls, in order."""
    values = [value for _, value in bindings_of(module)]
    return [name for value in values if (name := called_kernel(value)) is not None]


def in_place(module: tvm.IRModule) -> list[str]:
    """Names of those that write over a residual."""
    values = [value for _, value in bindings_of(module)]
    return [str(called_kernel(v)) for v in values if operator(v) == "relax.call_tir_inplace"]


def planned_bytes(module: tvm.IRModule) -> int:
    """Bytes of the feature maps' memory, as TVM plans it."""
    transform = relax.transform
    passes = [
        transform.ToNonDataflow(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
    ]
    planned = tvm.transform.Sequential(passes)(module)
    storages = [
        value
        for _, value in bindings_of(planned)
        if operator(value) == "relax.memory.alloc_storage"
    ]
    assert storages
    return sum(int(extent) for value in storages for extent in value.args[0].values)


@pytest.fixture(scope="module")
def units() -> nn.Module:
    """Give a network of two units with a residual and one without."""
    return seeded(Units())


def test_the_sum_of_each_unit_is_written_over_its_residual(units: nn.Module) -> None:
    before = with_schedules(lowered(imported(units, *SHAPE).module))
    after = residual_in_place(before)
    assert len(in_place(after)) == 2
    assert in_place(before) == []
    functions = kernel_functions(after)
    of = [kernel_of(functions[name], name) for name in kernels_called(after)]
    assert of == kernels_called(before)
    assert planned_bytes(after) < planned_bytes(before)


def test_answers_stay_the_same_to_the_bit(units: nn.Module) -> None:
    value = draw(*SHAPE)
    before = expose_intermediates(with_schedules(lowered(imported(units, *SHAPE).module)))
    after = residual_in_place(before)
    for entry in ("main", INTERMEDIATES):
        assert_same_bits(before, after, value.numpy(), entry=entry)
    assert_same(run(after, value.numpy(), target=HOST), units, value)


def test_what_strips_wrote_is_a_residual_too(units: nn.Module) -> None:
    """A group that needs memory of its own gives a tuple, whose tensor is written over."""
    module = lowered(imported(units, *SHAPE).module)
    layers = with_schedules(module)
    strips = compute_in_strips(layers, kernel_functions(module), SMALL)
    after = residual_in_place(strips)
    assert strip_calls(strips)
    assert in_place(after)
    value = draw(*SHAPE).numpy()
    assert_same_bits(layers, after, value)


class _Sum(nn.Module):
    """Adds something to what a layer answers."""

    def __init__(self, forward: Forward, *, linear: bool) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8) if linear else nn.Conv2d(8, 8, 1)
        self.second = nn.Linear(8, 8) if linear else nn.Conv2d(8, 8, 3, padding=1)
        self._forward = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        return self._forward(x, self.first, self.second)


def read_again(x: torch.Tensor, first: Layer, second: Layer) -> list[torch.Tensor]:
    """Read the residual once more after the sum."""
    h = first(x)
    y = torch.relu(second(torch.relu(h)) + h)
    return [second(y), torch.max_pool2d(h, 2)]


def read_in_another_shape(x: torch.Tensor, first: Layer, second: Layer) -> list[torch.Tensor]:
    """Give away the residual's memory under another name."""
    h = first(x)
    return [h.reshape(4, -1), second(torch.relu(h)) + h]


def answered(x: torch.Tensor, first: Layer, second: Layer) -> list[torch.Tensor]:
    """Give the residual away."""
    h = first(x)
    return [h, second(torch.relu(h)) + h]


def convolved(x: torch.Tensor, first: Layer, second: Layer) -> torch.Tensor:
    """Add to a convolution what it reads, pixels around included."""
    h = first(x)
    return second(h) + h


def given(x: torch.Tensor, first: Layer, second: Layer) -> torch.Tensor:
    """Add the network's input, which is the caller's."""
    return second(torch.relu(first(x))) + x


@pytest.mark.parametrize(
    ("forward", "shape"),
    [
        (read_again, (1, 8, 6, 5)),
        (read_in_another_shape, (1, 8)),
        (answered, (1, 8, 6, 5)),
        (convolved, (1, 8, 6, 5)),
        (given, (1, 8)),
    ],
)
def test_a_residual_that_somebody_needs_is_left_alone(
    forward: Forward, shape: tuple[int, ...]
) -> None:
    network = seeded(_Sum(forward, linear=len(shape) == 2))
    value = draw(*shape)
    module = with_schedules(lowered(imported(network, *shape).module))
    after = residual_in_place(module)
    assert in_place(after) == []
    assert_same(run(after, value.numpy(), target=HOST), network, value)
