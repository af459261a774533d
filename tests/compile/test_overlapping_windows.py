"""Windows over channels that fill no whole vectors: with AVX2 the last overlaps the one before.

Before::

    for c in vectorized(30): total[p, c] += x[.., c] * w[.., c]     # vectors of 8, 8, 8, 4 and 2

After::

    for v in range(4):                                              # from 0, 8, 16 and 22 on
        for lane in vectorized(8): total[p, v * 8 + lane] += x[.., v * 8 + lane - v // 3 * 2] * ...
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import tvm
from stages import assert_same, draw, imported, lowered, run, seeded, with_schedules
from torch import nn
from torch.nn import functional
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.attributes import WINDOW, kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.blocks import ACCUMULATE
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.kernels.tiling import Core, extents_of

AVX2, AVX512, ARM = Core(8, 16), Core(16, 32), Core(4, 32)


class _Windows(nn.Module):
    """Windows over 30, 9, 12, 20 and 5 channels; one that a tensor is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(3, width, 1) for width in (30, 9, 12, 20, 5))
        self.thirty = nn.Conv2d(30, 30, 3, padding=1, groups=30)
        self.nine = nn.Conv2d(9, 9, (1, 2), 2, groups=9, bias=False)
        self.over = nn.Conv2d(30, 30, 3, padding=1, groups=30)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        parts = [layer(image) for layer in self.first]
        return [
            torch.relu(self.thirty(parts[0])), self.over(parts[0]) + parts[0], self.nine(parts[1]),
            functional.max_pool2d(parts[2], 3, 2, 1), parts[3].mean((2, 3)),
            functional.avg_pool2d(parts[3], 3, 2, 1, count_include_pad=False),
            functional.avg_pool2d(parts[4], 2),
        ]  # fmt: skip


def _computed(core: Core) -> dict[str, int]:
    """Count the channels that each window kernel computes."""
    module = lowered(imported(seeded(_Windows()), 1, 3, 6, 8).module, core)
    probes = {
        name: Schedule(tvm.IRModule({"main": function}))
        for name, function in kernel_functions(module).items()
        if kind_of(function) == WINDOW
    }
    return {name: extents_of(p, p.get_sblock(ACCUMULATE))[1] for name, p in probes.items()}


def test_the_last_vector_overlaps_with_avx2_alone() -> None:
    found = _computed(AVX2)
    assert sorted(found.values()) == [5, 16, 16, 24, 24, 30, 32]
    # What is added may stand where the sum goes: written twice it would be added twice.
    assert sorted(_computed(ARM).values()) == sorted(_computed(AVX512).values())
    assert sorted(_computed(ARM).values()) == [5, 9, 12, 20, 20, 30, 30]


@pytest.mark.parametrize("number", range(2))
def test_answers_are_pytorchs(number: int) -> None:
    """Each vector goes alone, or its address would not be one of neighbours."""
    network = seeded(_Windows())
    module = lowered(imported(network, 1, 3, 6, 8).module, AVX2)

    def schedule(function: Any, core: Core) -> Any:
        state = Schedule(tvm.IRModule({"main": function}))
        if found := forms(function, core):
            found[min(number, len(found) - 1)](state, lambda _, default: default)
        return state.mod["main"]

    image = draw(1, 3, 6, 8)
    assert_same(run(with_schedules(module, AVX2, schedule), image.numpy()), network, image)
