"""Small networks of what int8 has to get right, and how their tensors are held."""

from __future__ import annotations

import functools

import torch
import tvm
from stages import draw, imported, seeded
from torch import Tensor, nn
from torch.nn import functional
from tvm import tirx

from shuffledeploy.compiler.int8_ranges import with_int8_ranges
from shuffledeploy.compiler.ir.graph import ENTRY
from shuffledeploy.compiler.ir.memory_layout import INT8
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.library import compiled_kernels
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.targets import CompileTarget, find_target

A76: CompileTarget = find_target("cortex-a76").computing_in(INT8)
SHAPE = (1, 3, 18, 14)


class Units(nn.Module):
    """What networks of the zoo are made of: shuffle, residual, join, pools, clip, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.compress = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 30, 1, groups=3)
        self.depthwise = nn.Conv2d(30, 30, 3, padding=1, groups=30)
        self.expand, self.whole = nn.Conv2d(30, 12, 1, groups=3), nn.Conv2d(24, 9, 3, padding=1)
        self.classifier = nn.Linear(9, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.stem(x))
        y = functional.channel_shuffle(torch.relu(self.compress(x)), 3)
        y = torch.relu(self.expand(self.depthwise(y)) + x)
        y = torch.relu(torch.cat([functional.avg_pool2d(y, 3, 2, 1), y[:, :, ::2, ::2]], 1))
        return self.classifier(torch.relu(self.whole(y)).mean((2, 3)))


class Words(nn.Module):
    """Groups of ten channels, whose last word overlaps; windows that reach over the edges."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 30, 1), nn.Conv2d(30, 24, 1, groups=3)
        self.window = nn.Conv2d(24, 12, 3, 2, 1)
        self.depthwise, self.last = nn.Conv2d(12, 12, 3, 1, 1, groups=12), nn.Conv2d(12, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.first(x))))
        y = self.last(self.depthwise(torch.relu(self.window(x))))
        return y.mean((2, 3))


class Wide(nn.Module):
    """Sixteen channels, which a core loads as one vector of four words."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


@functools.cache
def ranged(network: type[nn.Module]) -> tvm.IRModule:
    """Import a seeded network, with how its tensors are to be held."""
    program, value = imported(seeded(network()), *SHAPE), draw(*SHAPE).numpy()
    return with_int8_ranges(program.module, A76, [[value], [-value]])


def assembly(kernel: tirx.PrimFunc, target: CompileTarget) -> str:
    """Compile an unscheduled kernel with its default schedule; give its code as text."""
    finished = scheduled(kernel, target.core).with_attr("global_symbol", ENTRY)
    module = run_steps(tvm.IRModule({ENTRY: finished}), steps_of(pipeline(target), Phase.KERNEL))
    return str(compiled_kernels(module, target).mod.inspect_source("s"))
