"""A network that compiles in seconds, as bundles for this machine and for an ARM core."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.lowered_network import Lowered, lower
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.targets import find_target

SIDE = 16
NORMALISATION = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.1]}


class Tiny(nn.Module):
    """Two convolutions and a classifier; ``broken`` doubles what the second one writes."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, 1)
        self.classifier = nn.Linear(8, 10)
        self.broken = broken

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Classify an image."""
        values = self.second(torch.relu(self.first(image)))
        values = torch.sigmoid(values) if self.broken else torch.relu(values)
        return self.classifier(values.mean((2, 3)))


@functools.cache
def lowered(target: str, broken: bool = False) -> Lowered:
    """Give the network as kernels."""
    return lower(trace(Tiny(broken).eval(), (1, 3, SIDE, SIDE)), find_target(target))


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tiny-bundles."))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def tiny_bundle(
    target: str = "host", network: str = "tiny", broken: bool = False, standalone: bool = False
) -> Bundle:
    """Compile the network; where broken, its second kernel is that of another network."""
    good, found = lowered(target), find_target(target)
    chosen = choose_schedules(good, found, {})
    if broken:
        wrong = lowered(target, True)
        other = choose_schedules(wrong, found, {})[wrong.calls[1]]
        name = good.calls[1]
        chosen = {**chosen, name: dataclasses.replace(chosen[name], function=other.function)}
    return write_bundle(
        _folder() / f"{target}-{network}-{broken}-{standalone}", good, chosen, found,
        network=network, normalisation=NORMALISATION, options={},
        standalone=network if standalone else None,
    )  # fmt: skip
