"""Zeros around an image are a window's padding: nodes counted, numbers compared."""

from __future__ import annotations

import pytest
import torch
from stages import assert_module_is, count, imported, lowered, seeded, with_schedules
from torch import Tensor, nn
from torch.nn import functional

from shuffledeploy.compiler.ir.attributes import kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.passes.graph.pads_in_windows import pads_in_windows

SHAPE = (1, 6, 9, 8)


class Padded(nn.Module):
    """Convolutions of all kinds and average pools, each behind zeros; of two pads in turn, too."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(6, 8, 3, 2, padding=(0, 1))
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = nn.Conv2d(8, 12, (2, 3), groups=2, dilation=(1, 2))
        self.pointwise = nn.Conv2d(12, 32, 1)
        self.wide = nn.Conv2d(32, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.strided(functional.pad(x, (0, 1, 0, 1))))
        x = self.depthwise(functional.pad(x, (1, 2, 0, 3)))
        x = self.grouped(functional.pad(functional.pad(x, (1, 0)), (2, 1, 0, 1)))
        x = self.pointwise(functional.pad(x, (4, 4, 4, 4)))
        x = self.wide(functional.pad(x, (0, 1, 2, 1)))
        x = functional.avg_pool2d(functional.pad(x, (1, 0, 0, 1)), 3, 2)
        return functional.avg_pool2d(functional.pad(x, (1, 0)), 3, 2, 1).mean((2, 3))


class NotZeros(nn.Module):
    """Pads that no window can stand for, and one that another operator reads as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        shared = functional.pad(x, (1, 1, 1, 1))
        pads: list[Tensor] = [
            functional.pad(x, (1, 1, 1, 1), value=2.0),
            functional.pad(x, (1, 1, 1, 1), mode="reflect"),
            functional.pad(x, (-1, 1)),
        ]
        beside = functional.pad(x, (0, 0, 0, 0, 1, 1))[:, 1:7]
        pools = [functional.max_pool2d(shared, 2),
                 functional.avg_pool2d(shared, 3, 2, 1, count_include_pad=False)]  # fmt: skip
        answers = [self.conv(y).mean((2, 3)) for y in (*pads, shared, beside)]
        return [*answers, *(pool.mean((2, 3)) for pool in pools)]


def test_convolutions_and_average_pools_pad_themselves() -> None:
    network = seeded(Padded())
    module = imported(network, *SHAPE).module
    assert count(module)["nn.pad"] == 8
    padded = pads_in_windows(module)
    assert count(padded)["nn.pad"] == 0
    assert_module_is(padded, network, *SHAPE)
    kernels = lowered(module)
    assert all(map(kind_of, kernel_functions(kernels).values()))
    assert_module_is(with_schedules(kernels), network, *SHAPE)


@pytest.mark.smoke
def test_other_pads_stay() -> None:
    network = seeded(NotZeros())
    module = imported(network, *SHAPE).module
    # Twos, columns that are cut off, channels, and what pools read beside a convolution.
    assert count(module)["nn.pad"] == count(pads_in_windows(module))["nn.pad"] == 4
    assert_module_is(pads_in_windows(module), network, *SHAPE)
