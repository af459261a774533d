"""Ties of estimates: what has the fewest instructions is found again in the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuning_by_size import CodeSize, network_tasks, tune_by_size

from shuffledeploy.compiler.tuning.records.record_log import read_log
from shuffledeploy.compiler.tuning.score import DetailedScore, KernelObject


class _Close(CodeSize):
    """Scores that are all within a tie, and as many instructions as the object has bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.fewest: dict[str, float] = {}

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        sizes = [size for size in super().__call__(kernels) if isinstance(size, float)]
        for kernel, size in zip(kernels, sizes, strict=True):
            task = str((kernel.arguments[0], kernel.arguments[-1]))  # weights differ by schedule
            self.fewest[task] = min(size, self.fewest.get(task, size))
        return [DetailedScore(100 + size % 5, {"instructions": size}) for size in sizes]


def test_what_ties_with_the_best_in_fewer_instructions_is_written_too(tmp_path: Path) -> None:
    score, log = _Close(), tmp_path / "log"
    tune_by_size(network_tasks(), log, 60, score=score)
    kept = {r.details["instructions"] for r in read_log(log).preferred.values()}
    assert kept == set(score.fewest.values())
