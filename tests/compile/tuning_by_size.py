"""A small network to tune, and a tuner whose score needs no device: the size of an object."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from stages import HOST, QUICK, seeded
from torch import nn

from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.tuning.records.record_log import read_log
from shuffledeploy.compiler.tuning.score import KernelObject
from shuffledeploy.compiler.tuning.search.build_ahead import evaluation_here
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.compiler.tuning.search.tasks import Progress, Task, find_tasks
from shuffledeploy.compiler.tuning.search.tuner import tune


class InThisProcess(Workers):
    """Runs in this process what would run in a worker."""

    def warm_up(self) -> None:
        """Do nothing: it is warm."""

    def run_all(
        self, function: Any, calls: Sequence[tuple[Any, ...]], timeout_s: float
    ) -> list[Any]:
        return [function(*call) for call in calls]


class CodeSize:
    """Scores a candidate by the bytes of its object: the same for the same code.

    Kernels that read an input of the shape and data type `failing` fail.
    """

    source, unit = "sized: bytes of the object", "bytes"

    def __init__(self, failing: tuple[tuple[int, ...], str] | None = None) -> None:
        self.scored = 0
        self.failing = failing

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        self.scored += len(kernels)
        return [
            "it fails here" if kernel.arguments[0] == self.failing
            else float(kernel.path.stat().st_size)
            for kernel in kernels
        ]  # fmt: skip


class TunedNetwork(nn.Module):
    """Three convolutions to tune, one of them called twice, and a mean."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 32, 8, 32, 8)
        pairs = itertools.pairwise(widths)
        self.layers = nn.Sequential(*(nn.Conv2d(a, b, 1) for a, b in pairs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean((2, 3))


def network_tasks() -> list[Task]:
    """List the kernels of the network that can be tuned, the heaviest first."""
    return find_tasks(lower(trace(seeded(TunedNetwork()), (1, 8, 4, 6)), HOST), HOST)


def tune_by_size(tasks: Sequence[Task], log: Path, trials: int, **changes: Any) -> list[Progress]:
    """Tune by the size of objects, with a seed and in this process unless `changes` say so."""
    score = changes.pop("score", None) or CodeSize()
    known = read_log(log, score.source).best
    with evaluation_here(score, QUICK, InThisProcess(1)) as evaluation:
        return tune(tasks, known, evaluation, QUICK, log, trials=trials, **{"seed": 3, **changes})
