"""A search's schedules are kept where they win in the whole network, and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from stages import HOST, QUICK, seeded
from tuning_by_size import CodeSize, InThisProcess, TunedNetwork

from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.ir.connected_sets import connected
from shuffledeploy.compiler.lowered_network import Lowered, lower
from shuffledeploy.compiler.tuning import kept_schedules, run_search
from shuffledeploy.compiler.tuning.kept_schedules import BEFORE, BEST, FOUND, keep_what_wins
from shuffledeploy.compiler.tuning.records.record_log import append, log_path, read_log
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record
from shuffledeploy.compiler.tuning.request import Request
from shuffledeploy.compiler.tuning.score import MEASURED_UNIT, NetworkTimes
from shuffledeploy.compiler.tuning.search.evolution import sampled
from shuffledeploy.compiler.tuning.search.tasks import Task, default_schedule, find_tasks

SAID = "measured: on a board"


@pytest.fixture(scope="module")
def lowered() -> Lowered:
    return lower(trace(seeded(TunedNetwork()), (1, 8, 4, 6)), HOST)


class _Latency(CodeSize):
    source, unit = SAID, MEASURED_UNIT


@dataclasses.dataclass
class _Timed:
    """A device on which a library's calls take what the test says.

    `spent` gets the number of the library (0: before, which is default numbers; 1: found; 2: the
    best of each part) and the kernel's place.
    """

    lowered: Lowered
    spent: Callable[[int, int], float]

    @contextmanager
    def score(self, target: Any, device: str, kind: str | None) -> Iterator[CodeSize]:
        yield _Latency()

    def times_calls(self, device: str) -> bool:
        return True

    def time_calls(
        self, libraries: Sequence[Path], inputs: Any, device: str, threads: int, tell: Any
    ) -> list[NetworkTimes]:
        assert all(library.is_file() for library in libraries)
        assert [value.shape for value in inputs] == [(1, 8, 4, 6)]
        kernels = sorted(self.lowered.kernels)
        names = ("vm.builtin.copy", *self.lowered.calls)
        times = []
        for library in range(len(libraries)):
            each = [1.0, *(self.spent(library, kernels.index(n)) for n in self.lowered.calls)]
            rounds = [tuple(factor * time for time in each) for factor in (1.0, 1.3, 0.9)]
            times.append(NetworkTimes(names, tuple(map(sum, rounds)), tuple(rounds)))
        return times


def _request(folder: Path) -> Request:
    plain = Request(QUICK, "tiny", None, None, None, None, 3, None, None, folder, None, False)
    return dataclasses.replace(plain, measure_shortlist=True)


def _other_schedule(task: Task) -> Any:
    """Give a schedule of other numbers than the form's default."""
    default = str(default_schedule(task.function, QUICK.core).mod["main"])
    for seed in range(1, 50):
        schedule = _drawn(task, seed)
        if str(schedule.mod["main"]) != default:
            return schedule
    raise AssertionError("the form has no other numbers")


def _drawn(task: Task, seed: int) -> Any:
    import tvm
    from tvm.s_tir import Schedule

    from shuffledeploy.compiler.kernels.schedules import forms

    schedule = Schedule(tvm.IRModule({"main": task.function}), seed=seed, debug_mask="none")
    forms(task.function, QUICK.core)[0](schedule, sampled(schedule, at_default=False))
    return schedule


def _kept(
    lowered: Lowered, folder: Path, spent: Callable[[int, int], float],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Any, dict[str, Any], list[Task]]:  # fmt: skip
    """Keep what wins of a log with another schedule of each of two kernels."""
    for module in (run_search, kept_schedules):
        monkeypatch.setattr(module, "Workers", lambda **_: InThisProcess(1))
    tasks = find_tasks(lowered, QUICK)
    tasks = sorted(tasks, key=lambda task: task.name)[:2]
    log = log_path(folder, QUICK.name)
    append(log, [
        make_record(t.name, t.key, _other_schedule(t), 5.0, MEASURED_UNIT, SAID, 40) for t in tasks
    ])  # fmt: skip
    outcome = keep_what_wins(
        _request(folder), lowered, tasks, {}, _Timed(lowered, spent), "here",  # type: ignore[arg-type]
        console=Console(quiet=True), say=lambda _: None,
    )  # fmt: skip
    return outcome, read_log(log).best, tasks


def _is_default(task: Task, record: Any) -> bool:
    default = default_schedule(task.function, QUICK.core)
    return bool(record.trace == make_record("", "", default, 1.0, "", "", 1).trace)


def test_all_is_kept_where_all_wins(
    lowered: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, best, tasks = _kept(
        lowered, tmp_path, lambda library, _: 90.0 if library else 100.0, monkeypatch
    )
    assert (outcome.kept, outcome.returned) == (FOUND, ())
    assert outcome.over_kept(BEFORE) == pytest.approx(1 / 0.9, rel=0.02)
    assert [_is_default(task, best[task.key]) for task in tasks] == [False, False]
    assert "all that was found is kept" in outcome.sentence()


def test_what_loses_in_the_network_is_forgotten(
    lowered: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first kernel wins and the second loses: the fastest is a library of the best of both."""
    kernels = sorted(lowered.kernels)

    def spent(library: int, kernel: int) -> float:
        changed = kernels[kernel] in names
        found = {0: 80.0, 1: 130.0}
        if not changed or library == 0:
            return 100.0
        place = names.index(kernels[kernel])
        return found[place] if library == 1 or place == 0 else 100.0

    names = sorted(task.name for task in find_tasks(lowered, QUICK))[:2]
    outcome, best, tasks = _kept(lowered, tmp_path, spent, monkeypatch)
    assert (outcome.kept, outcome.returned) == (BEST, (tasks[1].name,))
    assert [_is_default(task, best[task.key]) for task in tasks] == [False, True]
    assert best[tasks[1].key].trials == 40
    assert outcome.over_kept(FOUND) > 1
    assert "what was found for 1 kernel does not win" in outcome.sentence()


def test_nothing_is_kept_of_a_network_that_got_slower(
    lowered: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, best, tasks = _kept(
        lowered, tmp_path, lambda library, _: 101.0 if library else 100.0, monkeypatch
    )
    assert outcome.kept == BEFORE
    assert set(outcome.returned) == {task.name for task in tasks}
    assert [_is_default(task, best[task.key]) for task in tasks] == [True, True]
    assert outcome.to_json()["before_over_kept"] == 1.0


def test_parts_are_what_calls_share() -> None:
    calls = [frozenset("ab"), frozenset("c"), frozenset("bd"), frozenset("c"), frozenset()]
    assert sorted("".join(sorted(part)) for part in connected(calls)) == ["abd", "c"]


def test_libraries_of_one_network_are_timed_call_by_call(tmp_path: Path, lowered: Lowered) -> None:
    from shuffledeploy.compiler.tuning.network_libraries import NetworkLibraries
    from shuffledeploy.deploy.scoring.network_times import ROUNDS, time_calls

    built = NetworkLibraries(lowered, HOST, tmp_path)
    built.build("one", {})
    built.build("the same", {})
    assert len(built.paths) == 1
    told: list[int] = []
    image = np.zeros((1, 8, 4, 6), np.float32)
    (times,) = time_calls(built.paths, [image], 1, lambda done, _: told.append(done))
    assert told == list(range(ROUNDS))
    assert set(lowered.kernels) <= {*times.names} | {"mean"}
    assert len(times.whole) == len(times.calls) == ROUNDS
    assert {len(calls) for calls in times.calls} == {len(times.names)}
    assert min(times.whole) > 0
