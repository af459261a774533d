"""Tuning by a score that is exact: the same seed finds the same schedules, run after run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny import lowered

from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tuning.records.record_log import read_log
from shuffledeploy.compiler.tuning.search.build_ahead import evaluation_here
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.compiler.tuning.search.tasks import find_tasks
from shuffledeploy.compiler.tuning.search.tuner import tune
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.scoring.scores import CountedInstructions

pytestmark = pytest.mark.long

ARM = find_target("arm")


@pytest.mark.emulated
def test_the_same_seed_and_counts_give_the_same_schedules(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one worker: each imports TVM
    tasks = find_tasks(lowered("arm"), ARM)
    score = CountedInstructions("cortex-a72", 2)
    texts = []
    with Workers() as workers, evaluation_here(score, ARM, workers) as evaluation:
        evaluation.warm_up()
        for name, seed in (("first", 5), ("again", 5), ("other", 6)):
            log = tmp_path / name
            tune(tasks, {}, evaluation, ARM, log, trials=len(tasks) + 24, seed=seed)
            texts.append(log.read_text())
            assert set(read_log(log).best) == {task.key for task in tasks}
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
