"""A bundle that takes a second to make."""

from __future__ import annotations

from pathlib import Path

import torch
from stages import HOST, seeded
from torch import nn

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.targets import CompileTarget


class Shuffled(nn.Module):
    """A shuffle between two grouped convolutions, and two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 12, 1, groups=3), nn.Conv2d(12, 12, 1, groups=3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.b(nn.functional.channel_shuffle(self.a(x), 3)))
        return x.mean((2, 3)), torch.sigmoid(x.mean((2, 3)))


def write_shuffled(output: Path, target: CompileTarget = HOST) -> Bundle:
    """Compile the network into a bundle."""
    lowered = lower(trace(seeded(Shuffled()), (1, 6, 4, 5)), target)
    return write_bundle(
        output, lowered, choose_schedules(lowered, target, {}), target, network="shuffled",
        normalisation=None, options={"seed": 0},
    )  # fmt: skip
