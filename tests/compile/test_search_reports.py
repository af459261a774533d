"""What a person sees of a search: its curve, lines in a file, a table on a terminal."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import pytest
from rich.console import Console

from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.report import progress_report
from shuffledeploy.compiler.tuning.report.history import History, gain, task_results
from shuffledeploy.compiler.tuning.report.outcome_tables import search_table
from shuffledeploy.compiler.tuning.report.progress_report import ProgressReport
from shuffledeploy.compiler.tuning.score import DetailedScore
from shuffledeploy.compiler.tuning.search.tasks import Progress, Task
from shuffledeploy.model.progress import seconds_left

pytestmark = pytest.mark.smoke


def _record(score: float) -> Record:
    return Record("k", "key", score, "ns", "measured: here", "0.27", "2026-11-22", 1, [])


def _state(name: str, calls: int, *, best: float | None, before: float | None) -> Progress:
    state = Progress(Task(name, name, None, calls), before=before)
    state.best = None if best is None else _record(best)
    state.trials = 4
    return state


def _improve(state: Progress, score: float) -> None:
    state.best = _record(score)
    state.updated += 1


def test_the_curve_begins_when_each_kernel_has_a_score() -> None:
    states = [_state("a", 3, best=None, before=None), _state("b", 1, best=50.0, before=80.0),
              _state("broken", 9, best=None, before=None)]  # fmt: skip
    states[2].failures, states[2].last_failure = 4, "it crashed"
    history = History()
    for spent, score in ((1, None), (4, 100.0), (8, 70.0)):
        if score is not None:
            _improve(states[0], score)
        history.note(states, spent)
    result = history.result(states, "ns", ["board x was set aside"])
    assert [(m.trials, m.score) for m in result.curve] == [(4, 350.0), (8, 260.0)]
    assert [m.seconds for m in result.curve] == sorted(m.seconds for m in result.curve)
    assert result.failed == ("broken: it crashed",)
    assert result.to_json()["warnings"] == ["board x was set aside"]
    assert result.to_json()["curve"][-1]["score"] == 260.0


def test_scores_that_carry_details_are_written_too() -> None:
    before = DetailedScore(40.0, {"iterations": 41.0})
    history, states = History(), [_state("a", 1, best=10.0, before=before)]
    (task,) = history.result(states, "estimated cycles").to_json()["tasks"]
    assert (task["before"], task["before"].details) == (40.0, {"iterations": 41.0})
    assert json.loads(json.dumps(task))["before"] == 40.0


def test_tasks_are_listed_by_their_share() -> None:
    tasks = task_results([
        _state("small", 1, best=10.0, before=40.0), _state("large", 10, best=9.0, before=9.0),
        _state("none", 5, best=None, before=None),
    ])  # fmt: skip
    assert [task.kernel for task in tasks] == ["large", "small", "none"]
    assert [round(task.share, 2) for task in tasks] == [0.9, 0.1, 0.0]
    assert gain(tasks) == pytest.approx(130 / 100)
    assert gain(tasks[2:]) is None


def test_time_left() -> None:
    assert seconds_left(0, 100, 5.0) is None
    assert seconds_left(25, 100, 5.0) == pytest.approx(15.0)
    assert seconds_left(25, 100, 5.0, 12.0) == pytest.approx(7.0)
    assert seconds_left(25, None, 5.0, 12.0) == pytest.approx(7.0)
    assert seconds_left(25, None, 5.0) is None


def _states() -> list[Progress]:
    return [_state(f"kernel_{i}", 1, best=10.0 + i, before=20.0) for i in range(3)]


def test_in_a_file_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress_report.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    with ProgressReport(Console(file=out, width=80), "tuning", 100) as report:
        for second in range(1, 41):
            clock[0] = float(second)
            report(_states(), second)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("tuning: 16 of 100 trials in 16 s, 1.0/s, 1.82x better, at most")
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_there_is_a_line_a_task() -> None:
    out = io.StringIO()
    console = Console(
        file=out, width=80, height=40, force_terminal=True, _environ={"TERM": "xterm"}
    )
    with ProgressReport(console, "tuning", 100) as report:
        report(_states(), 12)
    text = out.getvalue()
    for state in _states():
        assert state.task.name in text
    assert "12 of 100 trials" in text


def test_a_small_terminal_shows_the_heaviest() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, height=7, force_terminal=True, _environ={"TERM": "xterm"})
    with ProgressReport(console, "tuning", 100) as report:
        report(_states(), 12)
    assert "kernel_2" in out.getvalue()
    assert "kernel_0" not in out.getvalue()
    assert "1 more" in out.getvalue()


def test_the_table_fits_80_columns() -> None:
    states: list[Any] = [
        _state("conv3x3s2_with_a_very_long_name_of_its_own", 1, best=1234567890.0,
               before=2345678901.0),
        _state("b", 1, best=None, before=None),
    ]  # fmt: skip
    states[0].trials = 99999
    out = io.StringIO()
    history = History()
    history.note(states, 5)
    result = dataclasses.replace(history.result(states, "estimated cycles"))
    Console(file=out, width=80).print(search_table(result))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "1,234,567,890" in lines[1]
    assert "1.90x" in lines[1]
    assert "99999" in lines[1]
    assert "failed" in lines[2]
