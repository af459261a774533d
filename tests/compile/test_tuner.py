"""The tuner with a score that needs no device: what it keeps, spends, repeats and survives."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from stages import HOST, seeded
from tuning_by_size import CodeSize, InThisProcess, TunedNetwork, tune_by_size

from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.network import choose_schedules
from shuffledeploy.compiler.tuning.records.record_log import read_log
from shuffledeploy.compiler.tuning.score import KernelObject
from shuffledeploy.compiler.tuning.search import candidates
from shuffledeploy.compiler.tuning.search import trial_plan as plan
from shuffledeploy.compiler.tuning.search.build_ahead import BuildAhead
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.compiler.tuning.search.latency_score import LocalLatency
from shuffledeploy.compiler.tuning.search.tasks import Progress, Task
from shuffledeploy.compiler.tuning.search.trial_plan import BATCH

pytestmark = pytest.mark.long


@pytest.mark.smoke
def test_tasks_are_kernels_with_forms_the_heaviest_first(tasks: list[Task]) -> None:
    work = [task.calls * int(task.function.attrs["multiply_adds"]) for task in tasks]
    assert work == sorted(work, reverse=True)
    # Equal code is one task, whatever its name.
    assert len({task.key for task in tasks}) == len(tasks) == 4
    assert sorted(task.calls for task in tasks) == [1, 1, 1, 2]


def test_it_improves_or_keeps_and_writes_after_every_batch(
    tasks: list[Task], tmp_path: Path
) -> None:
    log, lines, spents = tmp_path / "log", [], []

    def report(states: Sequence[Progress], spent: int) -> None:
        lines.append(len(log.read_text().splitlines()))
        spents.append(spent)

    trials = len(tasks) + BATCH + 3
    states = tune_by_size(tasks, log, trials, report=report)
    assert all(before < after for before, after in itertools.pairwise(lines))
    assert spents == sorted(spents)
    assert spents[-1] == sum(state.trials for state in states) == trials
    best = read_log(log).best
    for state in states:
        assert state.start is not None
        assert state.best is not None
        assert state.best.score <= state.start
        assert state.best.trials == state.trials
        assert best[state.task.key] == state.best
        assert (state.best.source, state.best.unit) == (CodeSize.source, "bytes")
    assert any(state.best.score < (state.start or 0) for state in states if state.best)


def test_the_same_seed_finds_the_same_schedules(tasks: list[Task], tmp_path: Path) -> None:
    tune_by_size(tasks[:1], tmp_path / "a", 10)
    tune_by_size(tasks[:1], tmp_path / "b", 10)
    tune_by_size(tasks[:1], tmp_path / "c", 10, seed=4)
    first, again, other = ((tmp_path / name).read_text() for name in "abc")
    assert first == again
    assert first != other


def test_how_long_scoring_takes_changes_nothing(tasks: list[Task], tmp_path: Path) -> None:
    class Unsteady(CodeSize):
        """Takes its time now and then: batches are built ahead meanwhile, or wait."""

        def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
            time.sleep(0.4 * (self.scored % 3 == 1))
            return super().__call__(kernels)

    trials = len(tasks) + 3 * BATCH
    tune_by_size(tasks, tmp_path / "steady", trials)
    tune_by_size(tasks, tmp_path / "unsteady", trials, score=Unsteady())
    assert (tmp_path / "steady").read_text() == (tmp_path / "unsteady").read_text()


def test_the_first_of_all_tasks_are_tried_together(tasks: list[Task], tmp_path: Path) -> None:
    class Batches(CodeSize):
        sizes: list[int] = []  # noqa: RUF012

        def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
            self.sizes.append(len(kernels))
            return super().__call__(kernels)

    tune_by_size(tasks, tmp_path / "log", len(tasks) + 5, score=(score := Batches()))
    assert score.sizes == [len(tasks), 5]


def test_a_batch_is_on_the_disk_before_the_next_is_scored(
    tasks: list[Task], tmp_path: Path
) -> None:
    log, seen = tmp_path / "log", []

    class Watching(CodeSize):
        def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
            written = sum(record.trials for record in read_log(log).best.values())
            seen.append((written, self.scored))
            return super().__call__(kernels)

    tune_by_size(tasks, log, len(tasks) + 3 * BATCH, score=Watching())
    assert len(seen) >= 4
    assert all(written == scored for written, scored in seen)


def test_what_is_known_is_kept_and_nothing_is_spent_without_trials(
    tasks: list[Task], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    tasks = tasks[1:3]
    tune_by_size(tasks, log, 4)
    before, known = log.read_text(), read_log(log).best
    score = CodeSize()
    tune_by_size(tasks, log, 0, score=score)
    assert log.read_text() == before
    assert score.scored == 0
    # A second run goes on from there: no default is tried again, nothing gets worse.
    states = tune_by_size(tasks, log, 4)
    assert all(state.start is None for state in states)
    for state in states:
        assert state.best is not None
        assert state.best.score <= known[state.task.key].score


def test_it_ends_by_itself_where_nothing_is_left_to_learn(
    tasks: list[Task], tmp_path: Path
) -> None:
    class Flat(CodeSize):
        def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
            return [7.0] * len(kernels)

    states = tune_by_size(tasks[-1:], tmp_path / "log", 10_000, score=Flat())
    assert states[0].finished
    assert states[0].trials < 10_000
    assert states[0].best is not None
    assert states[0].best.score == 7.0


def test_a_kernel_that_always_fails_leaves_the_trials_to_the_others(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "PATIENCE", 1)
    log = tmp_path / "log"
    tasks = tasks[:2]
    states = tune_by_size(tasks, log, BATCH + 6, score=CodeSize(failing=input_of(tasks[0])))
    assert states[0].best is None
    assert states[0].failures == states[0].trials > 0
    assert states[0].last_failure == "it fails here"
    assert states[1].best is not None
    assert states[1].trials > 1
    assert tasks[0].key not in read_log(log).best


def input_of(task: Task) -> tuple[tuple[int, ...], str]:
    """Give what only the first task reads; how its weight is packed hangs on the core's lanes."""
    return candidates.argument_types(task.function)[0]


def test_interrupting_keeps_what_was_learnt(tasks: list[Task], tmp_path: Path) -> None:
    log = tmp_path / "log"

    def report(states: Sequence[Progress], spent: int) -> None:
        if spent > len(tasks):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune_by_size(tasks, log, 100, report=report)
    records = read_log(log)
    assert records.rejected == ()
    assert set(records.best) == {task.key for task in tasks}
    assert max(record.trials for record in records.best.values()) > 1


def test_records_of_the_tuner_fit_the_network_again(tasks: list[Task], tmp_path: Path) -> None:
    log = tmp_path / "log"
    tune_by_size(tasks, log, len(tasks))
    lowered = lower(trace(seeded(TunedNetwork()), (1, 8, 4, 6)), HOST)
    chosen = choose_schedules(lowered, HOST, read_log(log).best)
    assert sum(choice.record is not None for choice in chosen.values()) == len(tasks)
    assert not any(choice.refused for choice in chosen.values())


def test_candidates_are_built_in_real_workers(tasks: list[Task], tmp_path: Path) -> None:
    functions = [task.function for task in tasks[:2]]
    with Workers(1) as workers:
        built = candidates.build_candidates(functions, HOST, tmp_path, workers)
        sizes = [k.path.stat().st_size for k in built if isinstance(k, KernelObject)]
        assert len(sizes) == 2
        assert min(sizes) > 0
        # One that LLVM or TVM cannot build fails alone, with the reason.
        broken = functions[0].with_attr("tirx.is_entry_func", "x").with_attr("target", "nonsense")
        good, bad = candidates.build_candidates([functions[1], broken], HOST, tmp_path, workers)
    assert isinstance(good, KernelObject)
    assert isinstance(bad, str)
    assert bad


@pytest.mark.parametrize(("unit", "checked"), [("instructions", True), ("ns", False)])
def test_only_what_is_counted_is_built_with_its_checks(
    tasks: list[Task], tmp_path: Path, unit: str, checked: bool
) -> None:
    score = CodeSize()
    score.unit = unit
    with BuildAhead(score, HOST, tmp_path, InThisProcess(1)) as ahead:
        (kernel,) = ahead.build([tasks[0].function]).result()
    assert isinstance(kernel, KernelObject)
    # What a kernel would say of a wrong argument; counts of old records hold the checks.
    assert (b"Expected" in kernel.path.read_bytes()) == checked


def test_each_batch_is_timed_by_its_own_code(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    score = LocalLatency(InThisProcess(1), HOST.cpu)
    # One process times batch after batch: a library of a name that it knows is not loaded again,
    # and the old code does not take the second kernel's arguments.
    for task in tasks[:2]:
        batch = candidates.build_candidates([task.function], HOST, tmp_path, InThisProcess(1))
        (latency,) = score([kernel for kernel in batch if isinstance(kernel, KernelObject)])
        assert isinstance(latency, float)
        assert latency > 0


def test_the_programs_own_random_numbers_are_left_alone(tasks: list[Task], tmp_path: Path) -> None:
    np.random.seed(5)
    expected = np.random.random(3).tolist()
    np.random.seed(5)
    tune_by_size(tasks[:1], tmp_path / "log", BATCH + 1)
    assert np.random.random(3).tolist() == expected
