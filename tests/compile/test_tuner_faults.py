"""What can go wrong while tuning: nothing that was learnt is lost, nothing that is rubbish kept."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from stages import QUICK
from test_tuner import _CodeSize, _Here, _tune, network_tasks, tasks

from shuffledeploy.compiler.tuning import run_search
from shuffledeploy.compiler.tuning.records import log_files
from shuffledeploy.compiler.tuning.records.record_log import SHORTLIST, append, log_path, read_log
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record
from shuffledeploy.compiler.tuning.report.history import SearchResult
from shuffledeploy.compiler.tuning.request import Request
from shuffledeploy.compiler.tuning.run_search import measure_shortlist, search, unmeasured
from shuffledeploy.compiler.tuning.score import KINDS, MEASURED_UNIT, KernelObject, checked_score
from shuffledeploy.compiler.tuning.search.tasks import Task, default_schedule
from shuffledeploy.compiler.tuning.search.trial_plan import BATCH
from shuffledeploy.model.errors import Failure, UsageError

__all__ = ["tasks"]


class _Answers(_CodeSize):
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
    (state,) = _tune(tasks[:1], tmp_path / "log", BATCH + 1, score=score)
    assert state.failures >= len(RUBBISH)
    assert "is no score" in state.last_failure
    assert state.best is not None
    log = read_log(tmp_path / "log")
    assert log.rejected == ()
    assert 100 < log.best[state.task.key].score < 1e6


def test_a_device_that_answers_for_others_stops_the_run(tasks: list[Task], tmp_path: Path) -> None:
    log = tmp_path / "log"
    _tune(tasks[-1:], log, 1)
    before = log.read_bytes()
    # How many candidates there are hangs on the core's lanes: one score more is always wrong.
    with pytest.raises(Failure, match=r"gave \d+ scores for \d+ candidates"):
        _tune(tasks[-1:], log, 20, score=_OneMore())
    assert log.read_bytes() == before


class _OneMore(_CodeSize):
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
    _tune(network_tasks()[:2], log, 2 * BATCH)


def test_kill_9_in_the_middle_of_a_write_loses_at_most_a_batch(
    tasks: list[Task], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from test_tuner_faults import tune_until_killed\n"
        "tune_until_killed(Path(sys.argv[1]))"
    )
    here = Path(__file__).parent
    process = subprocess.run(
        [sys.executable, "-c", code, log, here, here.parents[1]], check=False, timeout=120
    )
    assert process.returncode == -signal.SIGKILL
    found = read_log(log)
    assert set(found.best) == {task.key for task in tasks[:2]}
    assert len(found.rejected) == 1
    states = _tune(tasks[:2], log, 4)
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
    _tune(tasks[-1:], log, 1)
    records = read_log(log).records
    if Path("/dev/full").exists():
        with pytest.raises(UsageError, match="No space left"):
            log_files.append_text(Path("/dev/full"), "text\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_files.os, "fsync", full)
    with pytest.raises(UsageError, match=r"cannot write the tuning log .*: No space left"):
        _tune(tasks[-1:], log, 20)
    with pytest.raises(UsageError, match="No space left"):
        run_search.compact(log)
    assert read_log(log).records[0].score <= records[0].score
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_two_tuners_share_a_log(tasks: list[Task], tmp_path: Path) -> None:
    log = tmp_path / "log"
    record = _tune(tasks[-1:], log, 1)[0].best
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
    class Slow(_CodeSize):
        def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
            time.sleep(0.2)
            return super().__call__(kernels)

    began = time.monotonic()
    states = _tune(tasks, tmp_path / "log", 1 << 30, score=Slow(), seconds=0.5)
    assert time.monotonic() - began < 5
    assert 0 < sum(state.trials for state in states) < 3 * BATCH


def test_what_was_built_ahead_is_not_scored_after_the_time(
    tasks: list[Task], tmp_path: Path
) -> None:
    """A busy machine scored for a batch longer than it was given."""
    starts: list[float] = []

    class Busy(_CodeSize):
        def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
            starts.append(time.monotonic())
            time.sleep(1.0)
            return super().__call__(kernels)

    began = time.monotonic()
    _tune(tasks, tmp_path / "log", 1 << 30, score=Busy(), seconds=1.5)
    assert starts
    # The one that was being built when the time was up.
    assert sum(start - began > 1.5 for start in starts) <= 1


def test_a_schedule_known_from_another_source_is_tried_first(
    tasks: list[Task], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    (before,) = _tune(tasks[-1:], log, 3 * BATCH)
    known = read_log(log).best

    class Other(_CodeSize):
        source = "sized: otherwise"

    score = Other()
    (state,) = _tune(tasks[-1:], log, 2, score=score, elsewhere=known)
    assert score.scored == 2
    assert before.best is not None
    assert state.best is not None
    assert state.best.score == before.best.score
    assert state.best.trace == before.best.trace
    assert state.best.source == "sized: otherwise"


@dataclasses.dataclass
class _Devices:
    """A device for each kind of score."""

    made: list[_CodeSize] = dataclasses.field(default_factory=list)

    def default_name(self, target: Any) -> str:
        return "here"

    @contextmanager
    def score(self, target: Any, device: str, kind: str | None) -> Iterator[_CodeSize]:
        assert kind is None or kind in KINDS
        score = _CodeSize()
        if kind == "latency":
            score.source, score.unit = "measured: on a board", MEASURED_UNIT
        self.made.append(score)
        yield score

    def require(self, target: Any, device: str, kind: str | None) -> None:
        pass

    def check(self, bundle: Any, device: str) -> Any:
        raise AssertionError("the tuner checks no bundle")


def _request(folder: Path, **changes: Any) -> Request:
    plain = Request(QUICK, "tiny", None, None, None, None, 3, None, None, folder, None, False)
    return dataclasses.replace(plain, **changes)


def test_the_shortlist_is_kept_measured_and_corrects_the_choice(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_search, "Workers", lambda **_: _Here(1))
    devices, console = _Devices(), Console(quiet=True)
    log = log_path(tmp_path, QUICK.name)
    one = tasks[:1]
    arguments = (one, devices, "here", log, console)
    with pytest.raises(UsageError, match="no shortlist"):
        measure_shortlist(_request(tmp_path), *arguments)
    result = search(_request(tmp_path, trials=2 * BATCH), *arguments)
    assert (result.trials, result.failed) == (2 * BATCH, ())
    shortlist = read_log(log).shortlist[one[0].key]
    assert 2 <= len(shortlist) <= SHORTLIST
    assert [r.score for r in shortlist] == sorted(r.score for r in shortlist)
    result = measure_shortlist(_request(tmp_path), *arguments)
    assert (result.trials, result.failed) == (len(shortlist), ())
    assert devices.made[-1].scored == len(shortlist)
    found = read_log(log)
    assert found.best[one[0].key].unit == MEASURED_UNIT
    assert {str(r.trace) for r in found.shortlist[one[0].key]} == {
        str(r.trace) for r in shortlist
    }  # fmt: skip
    # What was estimated is still there, to be measured on the next board.
    assert unmeasured(found)[one[0].key] == shortlist


def test_what_was_measured_at_another_time_is_measured_again(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score of a machine's fastest moment had stayed the best for ever."""
    monkeypatch.setattr(run_search, "Workers", lambda **_: _Here(1))
    devices, console = _Devices(), Console(quiet=True)
    log, (one, other) = log_path(tmp_path, QUICK.name), tasks[:2]
    arguments = (tasks[:1], devices, "here", log, console)
    search(_request(tmp_path, trials=2 * BATCH, score="latency"), *arguments)
    true = read_log(log).best[one.key]
    default = default_schedule(one.function, QUICK.core)
    lucky = make_record(one.name, one.key, default, 1.0, true.unit, true.source, 7)
    elsewhere = dataclasses.replace(true, key=other.key, score=2.0)
    append(log, [lucky, elsewhere])
    assert read_log(log).best[one.key].score == 1.0
    measure_shortlist(_request(tmp_path), *arguments)
    found = read_log(log)
    assert found.best[one.key].score == true.score
    assert found.best[one.key].trials == true.trials
    assert min(record.score for record in found.shortlist[one.key]) > 1.0
    assert found.best[other.key] == elsewhere


def test_trials_of_other_sources_count_for_nothing(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_search, "Workers", lambda **_: _Here(1))
    devices, log = _Devices(), log_path(tmp_path, QUICK.name)
    _tune(tasks[:1], log, 1, score=_Named("counted: long ago"))
    record = read_log(log).best[tasks[0].key]
    append(log, [dataclasses.replace(record, trials=500)])
    arguments = (tasks[:1], devices, "here", log, Console(quiet=True))
    # With nothing said, a record of any source will do.
    assert search(_request(tmp_path), *arguments) == SearchResult()
    assert devices.made == []
    assert search(_request(tmp_path, trials=3), *arguments).trials == 3
    assert search(_request(tmp_path, trials=3), *arguments).trials == 0
    assert read_log(log, "counted: long ago").best[tasks[0].key].trials == 500


class _Named(_CodeSize):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source  # type: ignore[misc]
