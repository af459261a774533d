"""What can go wrong while tuning: nothing that was learnt is lost, nothing that is rubbish kept."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tuning_by_size import CodeSize, network_tasks, tune_by_size

from shuffledeploy.compiler.tuning import run_search
from shuffledeploy.compiler.tuning.records import log_files
from shuffledeploy.compiler.tuning.records.record_log import append, read_log
from shuffledeploy.compiler.tuning.score import KernelObject, checked_score
from shuffledeploy.compiler.tuning.search.tasks import Task
from shuffledeploy.compiler.tuning.search.trial_plan import BATCH
from shuffledeploy.model.errors import Failure, UsageError


class _Answers(CodeSize):
    """A device that answers what it is told to."""

    def __init__(self, *answers: Any) -> None:
        super().__init__()
        self.answers = answers

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        good = super().__call__(kernels)
        return [*self.answers[: len(good)], *good[len(self.answers) :]]


RUBBISH = (math.nan, math.inf, -1.0, 0.0, 1e30, None, b"fast", [1.0])


def test_rubbish_is_no_score(tasks: list[Task], tmp_path: Path) -> None:
    assert checked_score(2.5) == 2.5
    assert checked_score("why not") == "why not"
    for answer in RUBBISH:
        assert "is no score" in str(checked_score(answer))
    score = _Answers(*RUBBISH)
    (state,) = tune_by_size(tasks[:1], tmp_path / "log", BATCH + 1, score=score)
    assert state.failures >= len(RUBBISH)
    assert "is no score" in state.last_failure
    assert state.best is not None
    log = read_log(tmp_path / "log")
    assert log.rejected == ()
    assert 100 < log.best[state.task.key].score < 1e6


def test_a_device_that_answers_for_others_stops_the_run(tasks: list[Task], tmp_path: Path) -> None:
    log = tmp_path / "log"
    tune_by_size(tasks[-1:], log, 1)
    before = log.read_bytes()
    # How many candidates there are hangs on the core's lanes: one score more is always wrong.
    with pytest.raises(Failure, match=r"gave \d+ scores for \d+ candidates"):
        tune_by_size(tasks[-1:], log, 20, score=_OneMore())
    assert log.read_bytes() == before


class _OneMore(CodeSize):
    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        return [*super().__call__(kernels), 1.0]


def tune_until_killed(log: Path) -> None:
    """Tune, and die in the middle of the third line that is written; run in another process."""
    written = 0

    def killed(_: int) -> None:
        nonlocal written
        written += 1
        if written == 3:
            with log.open("rb+") as stream:
                stream.truncate(log.stat().st_size - 40)
            os.kill(os.getpid(), signal.SIGKILL)

    log_files.os.fsync = killed  # type: ignore[assignment]
    tune_by_size(network_tasks()[:2], log, 2 * BATCH)


def test_kill_9_in_the_middle_of_a_write_loses_at_most_a_batch(
    tasks: list[Task], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "import pretended_host\n"
        "from pathlib import Path; from test_tuner_faults import tune_until_killed\n"
        "tune_until_killed(Path(sys.argv[1]))"
    )
    here = Path(__file__).parent
    process = subprocess.run(
        [sys.executable, "-c", code, log, here, here.parent, here.parents[1]],
        check=False,
        timeout=120,
    )
    assert process.returncode == -signal.SIGKILL
    found = read_log(log)
    assert set(found.best) == {task.key for task in tasks[:2]}
    assert len(found.rejected) == 1
    states = tune_by_size(tasks[:2], log, 4)
    # The next run goes on: no default is tried again, no lock is left, and nothing got worse.
    assert all(state.start is None for state in states)
    again = read_log(log)
    assert len(again.rejected) == 1
    for key, record in found.best.items():
        assert again.best[key].score <= record.score
        assert again.best[key].trials >= record.trials


def test_a_full_disk_is_said_and_leaves_the_log_whole(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    tune_by_size(tasks[-1:], log, 1)
    records = read_log(log).records
    if Path("/dev/full").exists():
        with pytest.raises(UsageError, match="No space left"):
            log_files.append_text(Path("/dev/full"), "text\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_files.os, "fsync", full)
    with pytest.raises(UsageError, match=r"cannot write the tuning log .*: No space left"):
        tune_by_size(tasks[-1:], log, 20)
    with pytest.raises(UsageError, match="No space left"):
        run_search.compact(log)
    assert read_log(log).records[0].score <= records[0].score
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_two_tuners_share_a_log(tasks: list[Task], tmp_path: Path) -> None:
    log = tmp_path / "log"
    record = tune_by_size(tasks[-1:], log, 1)[0].best
    assert record is not None
    children = []
    for number in range(4):
        if (child := os.fork()) == 0:
            for line in range(6):
                append(log, [dataclasses.replace(record, key=f"{number}-{line}")])
                run_search.compact(log)
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    found = read_log(log)
    assert found.rejected == ()
    assert len(found.records) == 25


def test_time_is_up(tasks: list[Task], tmp_path: Path) -> None:
    class Slow(CodeSize):
        def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
            time.sleep(0.2)
            return super().__call__(kernels)

    began = time.monotonic()
    states = tune_by_size(tasks, tmp_path / "log", 1 << 30, score=Slow(), seconds=0.5)
    assert time.monotonic() - began < 5
    assert 0 < sum(state.trials for state in states) < 3 * BATCH


def test_what_was_built_ahead_is_not_scored_after_the_time(
    tasks: list[Task], tmp_path: Path
) -> None:
    """A busy machine scored for a batch longer than it was given."""
    starts: list[float] = []

    class Busy(CodeSize):
        def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
            starts.append(time.monotonic())
            time.sleep(1.0)
            return super().__call__(kernels)

    began = time.monotonic()
    tune_by_size(tasks, tmp_path / "log", 1 << 30, score=Busy(), seconds=1.5)
    assert starts
    # The one that was being built when the time was up.
    assert sum(start - began > 1.5 for start in starts) <= 1


def test_a_schedule_known_from_another_source_is_tried_first(
    tasks: list[Task], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    (before,) = tune_by_size(tasks[-1:], log, 3 * BATCH)
    known = read_log(log).best

    class Other(CodeSize):
        source = "sized: otherwise"

    score = Other()
    (state,) = tune_by_size(tasks[-1:], log, 2, score=score, elsewhere=known)
    assert score.scored == 2
    assert before.best is not None
    assert state.best is not None
    assert state.best.score == before.best.score
    assert state.best.trace == before.best.trace
    assert state.best.source == "sized: otherwise"
