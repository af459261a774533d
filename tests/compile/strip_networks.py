"""A network whose layers go by strips, for the tests of what is written where."""

from __future__ import annotations

import torch
import tvm
from torch import nn
from torch.nn import functional

from shuffledeploy.compiler.ir.graph import bindings_of, called_kernel

# So small that tensors of a few kilobytes go by strips.
SMALL = 8192


class Units(nn.Module):
    """A stem, two units with a residual and a shuffle, one of stride 2 beside a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.reduce = nn.ModuleList(nn.Conv2d(12, 6, 1, groups=3) for _ in range(3))
        self.depthwise = nn.ModuleList(
            nn.Conv2d(6, 6, 3, stride, 1, groups=6) for stride in (1, 1, 2)
        )
        self.expand = nn.ModuleList(nn.Conv2d(6, 12, 1, groups=3) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        for reduce, depthwise, expand in zip(self.reduce, self.depthwise, self.expand, strict=True):
            y = functional.channel_shuffle(torch.relu(reduce(x)), 3)
            y = expand(depthwise(y))
            small = y.shape[2] < x.shape[2]
            beside = functional.avg_pool2d(x, 3, 2, 1) if small else x
            x = torch.relu(torch.cat([beside, y], 1) if small else x + y)
        return x.mean((2, 3))


def calls(module: tvm.IRModule) -> list[str]:
    """Names of what the entry function calls."""
    names = [called_kernel(value) for _, value in bindings_of(module)]
    return [name for name in names if name is not None]
