"""What a search keeps: a shortlist to measure, and what counts as tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from stages import QUICK
from tuning_by_size import CodeSize, InThisProcess, tune_by_size

from shuffledeploy.compiler.tuning import run_search
from shuffledeploy.compiler.tuning.records.record_log import SHORTLIST, append, log_path, read_log
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record
from shuffledeploy.compiler.tuning.report.history import SearchResult
from shuffledeploy.compiler.tuning.request import Request
from shuffledeploy.compiler.tuning.run_search import measure_shortlist, search, unmeasured
from shuffledeploy.compiler.tuning.score import KINDS, MEASURED_UNIT
from shuffledeploy.compiler.tuning.search.build_ahead import BuildAhead, evaluation_here
from shuffledeploy.compiler.tuning.search.tasks import Task, default_schedule
from shuffledeploy.compiler.tuning.search.trial_plan import BATCH
from shuffledeploy.model.errors import UsageError


@dataclasses.dataclass
class _Devices:
    """A device for each kind of score."""

    made: list[CodeSize] = dataclasses.field(default_factory=list)

    def default_name(self, target: Any) -> str:
        return "here"

    @contextmanager
    def score(self, target: Any, device: str, kind: str | None) -> Iterator[CodeSize]:
        assert kind is None or kind in KINDS
        score = CodeSize()
        if kind == "latency":
            score.source, score.unit = "measured: on a board", MEASURED_UNIT
        self.made.append(score)
        yield score

    @contextmanager
    def evaluation(self, target: Any, device: str, kind: str | None) -> Iterator[BuildAhead]:
        with (
            self.score(target, device, kind) as score,
            evaluation_here(score, target, InThisProcess(1)) as evaluation,
        ):
            yield evaluation

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
    monkeypatch.setattr(run_search, "Workers", lambda **_: InThisProcess(1))
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
    monkeypatch.setattr(run_search, "Workers", lambda **_: InThisProcess(1))
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
    monkeypatch.setattr(run_search, "Workers", lambda **_: InThisProcess(1))
    devices, log = _Devices(), log_path(tmp_path, QUICK.name)
    tune_by_size(tasks[:1], log, 1, score=_Named("counted: long ago"))
    record = read_log(log).best[tasks[0].key]
    append(log, [dataclasses.replace(record, trials=500)])
    arguments = (tasks[:1], devices, "here", log, Console(quiet=True))
    # With nothing said, a record of any source will do.
    assert search(_request(tmp_path), *arguments) == SearchResult()
    assert devices.made == []
    assert search(_request(tmp_path, trials=3), *arguments).trials == 3
    assert search(_request(tmp_path, trials=3), *arguments).trials == 0
    assert read_log(log, "counted: long ago").best[tasks[0].key].trials == 500


class _Named(CodeSize):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source  # type: ignore[misc]
