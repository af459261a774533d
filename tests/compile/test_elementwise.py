"""What follows a kernel, element by element, is computed by it or by one kernel for all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from stages import (
    HOST,
    assert_same,
    assert_same_bits,
    count,
    draw,
    imported,
    lowered,
    run,
    seeded,
    simplified,
    with_schedules,
)
from strip_networks import SMALL, calls
from torch import Tensor, nn
from torch.nn import functional

from shuffledeploy.compiler.ir.attributes import ELEMENTWISE, kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.choose_layouts import choose_layouts
from shuffledeploy.compiler.passes.graph.lower_to_kernels import lower_to_kernels
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.join_in_place import join_in_place
from shuffledeploy.compiler.passes.memory.residual_in_place import residual_in_place

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "silu by hand": lambda x: x * torch.sigmoid(x),
    "hardswish": functional.hardswish,
    "hardsigmoid": functional.hardsigmoid,
    "hardswish by hand": lambda x: x * functional.relu6(x + 3.0) / 6.0,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "leaky": functional.leaky_relu,
    "elu": functional.elu,
    "tanh": torch.tanh,
    "square": lambda x: torch.square(torch.relu(x)),
    "root": lambda x: torch.sqrt(torch.abs(x) + 1.0),
    "backwards": lambda x: 1.0 - 2.0 / (torch.abs(x) + 1.0),
    "three": lambda x: torch.maximum(x * 0.5, -torch.minimum(x, x * x)),
}
#: Functions by other intrinsics, with regions, and with what others read.
_SOME = ("silu by hand", "hardswish", "gelu", "three")
CORES = [Core(16, 32), Core(8, 16), Core(4, 32)]


class _Activated(nn.Module):
    """A kernel of every kind before each of some functions; its channels fill no vector."""

    def __init__(self, functions: Sequence[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.functions = functions
        self.first, self.rows = nn.Conv2d(3, 30, 3, 2, 1), nn.Conv2d(30, 30, 1, groups=3)
        self.depthwise = nn.Conv2d(30, 30, 3, 1, 1, groups=30)
        self.slopes = nn.PReLU(30)
        self.linear = nn.Linear(30, 17)

    def forward(self, x: Tensor) -> list[Tensor]:
        answers = []
        for function in self.functions:
            y = function(self.rows(function(self.first(x))) + 0.5)
            y = self.slopes(function(self.depthwise(y)) + y)
            joined = function(torch.cat([y, self.depthwise(y)], 1))
            answers += [
                joined.permute(0, 2, 3, 1),
                function(
                    self.linear(function(functional.avg_pool2d(joined[:, :30], 7)).flatten(1))
                ),
            ]
        return answers


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_follows_a_kernel_is_in_it(name: str) -> None:
    network = seeded(_Activated([ACTIVATIONS[name]]))
    module = lower_to_kernels(choose_layouts(simplified(network, 1, 3, 14, 14)), HOST.core)
    left = {operator for operator in count(module) if operator not in ("call_tir", "reshape")}
    assert left <= {"take"}, "only a slice, which its reader reads"
    assert not any(kind_of(f) == ELEMENTWISE for f in kernel_functions(module).values())


@pytest.mark.parametrize("core", CORES, ids=lambda core: f"{core.lanes}-lanes")
def test_every_function_computes_what_pytorch_computes(core: Core) -> None:
    network = seeded(_Activated([ACTIVATIONS[name] for name in _SOME]))
    value = draw(1, 3, 14, 14)
    module = with_schedules(lowered(imported(network, 1, 3, 14, 14).module, core), core)
    assert_same(run(module, value.numpy()), network, value)


class _Winograd(nn.Module):
    """A layer that goes Winograd's way, with tiles that reach over its edges."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return functional.silu(self.conv(y) + y).mean((2, 3))


def test_winograds_last_transform_takes_it() -> None:
    network, value = seeded(_Winograd()), draw(1, 3, 13, 14)
    module = lowered(imported(network, 1, 3, 13, 14).module)
    names = list(kernel_functions(module))
    assert any("winograd" in name for name in names)
    assert not any("fused" in name for name in names)
    assert_same(run(with_schedules(module), value.numpy()), network, value)


class _Excited(nn.Module):
    """Squeeze and excitation, a residual behind it, and a norm before a convolution."""

    def __init__(self, channels: int = 20) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, 2, 1)
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels)
        self.squeeze, self.excite = nn.Conv2d(channels, 6, 1), nn.Conv2d(6, channels, 1)
        self.norm, self.last = nn.BatchNorm2d(channels), nn.Conv2d(channels, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self.first(x))
        y = functional.hardswish(self.depthwise(x))
        gate = torch.sigmoid(self.excite(functional.silu(self.squeeze(y.mean((2, 3), True)))))
        x = torch.relu(y * gate + x)
        return self.last(torch.relu(self.norm(x))).mean((2, 3)) + x.mean((2, 3))[:, :12]


@pytest.mark.parametrize("images", [1, 3])
def test_a_scale_of_channels_is_one_kernel_with_all_that_follows(images: int) -> None:
    network, value = seeded(_Excited()), draw(images, 3, 18, 22)
    module = lowered(imported(network, images, 3, 18, 22).module)
    functions = kernel_functions(module)
    kinds = [kind_of(f) for name, f in functions.items() if "conv" not in name]
    assert kinds.count(ELEMENTWISE) == 2
    assert_same(run(with_schedules(module), value.numpy(), target=HOST), network, value)


def test_scales_go_by_strips_and_over_what_they_read() -> None:
    network, value = seeded(_Excited()), draw(1, 3, 38, 30)
    unscheduled = lowered(imported(network, 1, 3, 38, 30).module)
    whole = with_schedules(unscheduled)
    strips = compute_in_strips(whole, kernel_functions(unscheduled), 2 * SMALL)
    assert any(name.startswith("strips_of_2_elementwise") for name in calls(strips))
    assert_same_bits(whole, residual_in_place(strips), value.numpy())
    over = kernel_functions(residual_in_place(whole))
    assert any(name.startswith("elementwise") and name.endswith("_in_place") for name in over)
    assert_same_bits(whole, residual_in_place(whole), value.numpy())


class _JoinedAndActivated(nn.Module):
    """A concatenation whose function reads each element twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 10, 1), nn.Conv2d(3, 22, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(torch.cat([self.left(x), self.right(x)], 1)).mean((2, 3))


def test_a_function_of_a_concatenation_goes_where_parts_are_written() -> None:
    network, value = seeded(_JoinedAndActivated()), draw(1, 3, 9, 7)
    unscheduled = lowered(imported(network, 1, 3, 9, 7).module)
    whole = with_schedules(unscheduled)
    joined = join_in_place(whole, kernel_functions(unscheduled))
    assert any("_into_concat" in name for name in kernel_functions(joined))
    assert_same(assert_same_bits(whole, joined, value.numpy()), network, value)


class _ReadElsewhere(nn.Module):
    """Of a function's middle others read, too: what is there already stays what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        middle = torch.sigmoid(y)
        return (y * middle).mean((2, 3)), self.other(middle).mean((2, 3))


def test_what_others_read_is_written_for_them() -> None:
    network, value = seeded(_ReadElsewhere()), draw(1, 3, 6, 5)
    module = lowered(imported(network, 1, 3, 6, 5).module)
    assert not any("fused" in name for name in kernel_functions(module))
    assert_same(run(with_schedules(module), value.numpy()), network, value)
    assert np.isfinite(run(with_schedules(module), value.numpy())[0]).all()
