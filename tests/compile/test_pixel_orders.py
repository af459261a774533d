"""Pixels that only move are read where they lie: kernels counted, numbers compared."""

from __future__ import annotations

from itertools import starmap

import numpy as np
import pytest
import torch
from int8_networks import A76
from stages import (
    HOST,
    assert_module_is,
    assert_same_bits,
    count,
    draw,
    imported,
    lowered,
    seeded,
    with_schedules,
)
from strip_networks import calls
from torch import Tensor, nn
from torch.nn import functional

from shuffledeploy.compiler.int8_ranges import with_int8_ranges
from shuffledeploy.compiler.ir.attributes import kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.ir.memory_layout import HALF
from shuffledeploy.compiler.kernels.pixel_order import AxisOrder, axis_order
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.pixel_shuffles import pixel_shuffles
from shuffledeploy.compiler.passes.graph.unshuffles_in_windows import unshuffles_in_windows
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.targets import find_target

ARM = Core(4, 32)
SHAPE = (1, 3, 12, 10)
# So little that these networks go by strips.
CACHE = 49152


class Enlarged(nn.Module):
    """What was enlarged is joined, added, and read by windows of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.lateral, self.joined = nn.Conv2d(8, 16, 1), nn.Conv2d(24, 12, 3, 1, 1)
        self.dense, self.strided = nn.Conv2d(12, 8, 3, 1, 1), nn.Conv2d(12, 6, 1, 2)
        self.depthwise = nn.Conv2d(12, 12, 3, 1, 1, groups=12)

    def forward(self, x: Tensor) -> list[Tensor]:
        large = torch.relu(self.large(x))
        small = torch.relu(self.small(large))
        twice = functional.interpolate(small, scale_factor=2, mode="nearest")
        pyramid = torch.relu(self.lateral(large) + twice)
        joined = torch.relu(self.joined(torch.cat([twice, large], 1)))
        wide = functional.interpolate(joined, scale_factor=(2, 3), mode="nearest")
        read = [self.dense(wide), self.strided(wide), self.depthwise(wide),
                functional.max_pool2d(wide, 3, 2, 1), torch.sigmoid(wide), pyramid]  # fmt: skip
        return [y.mean((2, 3)) for y in read]


class Bordered(nn.Module):
    """Borders that repeat or mirror the edge, around the input, too, and before a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 5, 1, (2, 1), padding_mode="reflect")
        self.second = nn.Conv2d(8, 16, 3, 2, 1, padding_mode="reflect")
        self.third = nn.Conv2d(16, 16, 3, 1, 1, groups=16, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.third(torch.relu(self.second(torch.relu(self.first(x))))))
        return functional.avg_pool2d(functional.pad(x, (0, 1, 1, 0), mode="reflect"), 2).mean(
            (2, 3)
        )


class Decoder(nn.Module):
    """Each layer alone reads what the one before it wrote, enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 12, 3, 1, 1)
        self.third, self.last = nn.Conv2d(12, 12, 3, 1, 1, groups=12), nn.Conv2d(12, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(torch.relu(self.first(x)), scale_factor=2, mode="nearest")
        x = functional.interpolate(torch.relu(self.second(x)), scale_factor=2, mode="nearest")
        return self.last(torch.relu(self.third(x))).mean((2, 3))


class SuperResolution(nn.Module):
    """Pixel shuffles that a convolution, a sum, a concatenation and a window read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 32, 3, 1, 1)
        self.beside, self.joined = nn.Conv2d(3, 8, 1), nn.Conv2d(16, 27, 3, 1, 1)
        self.window = nn.Conv2d(3, 3, 3, 1, 1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.pixel_shuffle(torch.tanh(self.wide(torch.relu(self.first(x)))), 2)
        z = self.beside(functional.interpolate(x, scale_factor=2, mode="nearest")) + y
        z = self.joined(torch.cat([y, torch.relu(z)], 1))
        return self.window(functional.pixel_shuffle(z, 3)).mean((2, 3))


class Focused(nn.Module):
    """Pixels that become channels, by the operator and by slices."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(12, 9, 3, 1, 1), nn.Conv2d(12, 9, 2, (2, 1), (1, 0))

    def forward(self, x: Tensor) -> Tensor:
        corners = ((0, 0), (1, 0), (0, 1), (1, 1))
        sliced = torch.cat(list(starmap(lambda i, j: x[..., i::2, j::2], corners)), 1)
        unshuffled = functional.pixel_unshuffle(x, 2)
        return self.first(sliced).mean((2, 3)) + self.second(unshuffled).mean((2, 3))


@pytest.mark.parametrize("core", [HOST.core, ARM], ids=["host", "arm"])
@pytest.mark.parametrize("network", [Enlarged, Decoder, Bordered, SuperResolution, Focused])
def test_no_kernel_moves_pixels(network: type[nn.Module], core: Core) -> None:
    module = lowered(imported(seeded(network()), *SHAPE).module, core)
    kernels = kernel_functions(module)
    assert all(map(kind_of, kernels.values())), sorted(kernels)
    assert not [name for _, name in kernel_calls(module) if name.startswith("pixels")]
    assert_module_is(with_schedules(module, core), seeded(network()), *SHAPE)


@pytest.mark.parametrize("network", [Enlarged, Bordered, SuperResolution])
def test_batches_read_so_too(network: type[nn.Module]) -> None:
    shape = (3, *SHAPE[1:])
    module = lowered(imported(seeded(network()), *shape).module)
    assert_module_is(with_schedules(module), seeded(network()), *shape)


@pytest.mark.parametrize("network", [Decoder, Bordered, SuperResolution])
def test_layers_that_read_so_go_by_strips(network: type[nn.Module]) -> None:
    shape = (1, 3, 36, 30)
    module = lowered(imported(seeded(network()), *shape).module)
    scheduled, unscheduled = with_schedules(module), kernel_functions(module)
    stripped = compute_in_strips(scheduled, unscheduled=unscheduled, cache=CACHE)
    assert len(calls(stripped)) < len(calls(scheduled))
    assert_same_bits(scheduled, stripped, draw(*shape).numpy())


def test_int8_is_read_so_too() -> None:
    network, value = seeded(Decoder()), draw(*SHAPE)
    module = with_int8_ranges(imported(network, *SHAPE).module, A76, [[value.numpy()]])
    kernels = kernel_functions(run_steps(module, steps_of(pipeline(A76), Phase.GRAPH)))
    read = {name: str(kernel.params[0].dtype) for name, kernel in kernels.items()}
    assert read == {
        "conv3x3_3x16_12x10": "float32",
        "conv3x3_16x12_24x20": "int8",
        "depthwise3x3_12_48x40": "int8",
        "conv1x1_12x8_48x40": "int8",
        "mean_8_1x1": "int8",
    }


def test_half_precision_is_read_so_too() -> None:
    half = find_target("cortex-a76").computing_in(HALF)
    module = imported(seeded(Decoder()), *SHAPE).module
    kernels = kernel_functions(run_steps(module, steps_of(pipeline(half), Phase.GRAPH)))
    assert not [name for name in kernels if name.startswith("pixels")]
    assert str(kernels["conv3x3_16x12_24x20"].params[0].dtype) == HALF


def test_an_enlarged_answer_takes_one_kernel() -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, 1, 1), nn.Upsample(scale_factor=3)))
    module = lowered(imported(network, *SHAPE).module)
    assert [name for _, name in kernel_calls(module)] == ["conv1x1_3x1_12x10", "pixels_1_36x30"]
    assert_module_is(with_schedules(module), network, *SHAPE)


def test_factors_that_are_no_whole_numbers_are_left_to_tvm() -> None:
    layers = nn.Conv2d(3, 8, 1), nn.Upsample((17, 13)), nn.Conv2d(8, 6, 3)
    network = seeded(nn.Sequential(*layers))
    module = lowered(imported(network, *SHAPE).module)
    assert_module_is(with_schedules(module), network, *SHAPE)


def test_a_window_reads_what_its_channels_were() -> None:
    network = seeded(Focused())
    module = imported(network, *SHAPE).module
    after = unshuffles_in_windows(module)
    assert count(module)["concat"] == 1
    assert not {"concat", "permute_dims", "reshape", "strided_slice"} & set(count(after)) - {
        "reshape"
    }
    assert_module_is(after, network, *SHAPE)


class _NotSquares(nn.Module):
    """Movements that look like pixels that became channels, and are something else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.grouped = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 4, 1, groups=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        twice = torch.cat([x[..., ::2, ::2]] * 4, 1)
        turned = functional.pixel_unshuffle(x, 2).flip(2)
        other = x.reshape(1, 12, 6, 5)
        unshuffled = functional.pixel_unshuffle(x, 2)
        answers = [self.conv(y) for y in (twice, turned, other)]
        return [y.mean((2, 3)) for y in (*answers, self.grouped(unshuffled))]


def test_other_movements_stay() -> None:
    network = seeded(_NotSquares())
    module = imported(network, *SHAPE).module
    assert count(unshuffles_in_windows(module)) == count(module)
    assert_module_is(with_schedules(lowered(module)), network, *SHAPE)


class _WrongShuffle(nn.Module):
    """Channels become pixels, in rows of four."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(1, 2, 4, 3, 5).permute(0, 1, 3, 4, 2).reshape(1, 2, 3, 20)
        return x.mean((2, 3))


def test_what_is_no_pixel_shuffle_stays() -> None:
    network, shape = _WrongShuffle(), (1, 8, 3, 5)
    module = imported(network, *shape).module
    assert count(pixel_shuffles(module)) == count(module)
    assert_module_is(with_schedules(lowered(module)), network, *shape)


@pytest.mark.parametrize("zoom", [1, 2, 3])
@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("mirrored", [False, True])
def test_an_order_is_found_by_its_places(zoom: int, before: int, mirrored: bool) -> None:
    order = AxisOrder(5, 5 * zoom + before + 1, zoom, before, mirrored)
    found = axis_order(order.places(), 5)
    assert found is not None
    np.testing.assert_array_equal(found.places(), order.places())
    written = [int(found.at(place)) for place in range(found.extent)]
    assert written == order.places().tolist()


def test_places_of_no_rule_have_no_order() -> None:
    assert axis_order(np.array([0, 2, 1]), 3) is None
    assert axis_order(np.array([0, 0, 1, 1, 1, 2]), 3) is None
