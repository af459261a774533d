"""Tuning a network: which kernel gets the next trials, what is kept, when it is enough."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tvm
from tvm.s_tir import Schedule

from compile.kernels.schedules import forms
from compile.kernels.tiling import Core
from compile.network import Lowered
from compile.targets import CompileTarget
from compile.tuning.candidates import Workers, build_candidates
from compile.tuning.records import (
    LARGEST_SCORE,
    SHORTLIST,
    Record,
    append,
    kernel_key,
    make_record,
    recorded_schedule,
)
from compile.tuning.score import MEASURED_UNIT, KernelObject, Score
from compile.tuning.search import TaskSearch, new_cost_model, sampled
from model.errors import Failure

BATCH = 16
DEFAULT_TRIALS_A_TASK = 32
# Batches without a gain of at least this part after which a task is left alone.
PATIENCE = 3
SMALL_GAIN = 0.005


@dataclasses.dataclass(frozen=True)
class Task:
    """A kernel worth tuning.

    Attributes
    ----------
    name, key : str
        Of the kernel.
    function : tirx.PrimFunc
        Unscheduled.
    calls : int
        How often one inference calls it.
    """

    name: str
    key: str
    function: Any
    calls: int


@dataclasses.dataclass
class Progress:
    """How far one task has come; handed to the caller after every batch.

    Attributes
    ----------
    start : float or None
        Score of the form's default numbers, where this run tried them.
    before : float or None
        Score of one call when the run began: of the best record known, else `start`.
    """

    task: Task
    start: float | None = None
    before: float | None = None
    best: Record | None = None
    trials: int = 0
    failures: int = 0
    stale: int = 0
    finished: bool = False
    last_failure: str = ""
    updated: float = 0.0
    shortlist: tuple[float, ...] = ()


def find_tasks(lowered: Lowered, target: CompileTarget) -> list[Task]:
    """List the kernels that have forms to search, one task for equal code, the heaviest first."""
    tasks: dict[str, Task] = {}
    for name, function in lowered.kernels.items():
        if not forms(function, target.core):
            continue
        key, calls = kernel_key(function), lowered.calls.count(name)
        if key in tasks:
            calls += tasks[key].calls
        tasks[key] = Task(name, key, function, calls)
    return sorted(tasks.values(), key=lambda t: -t.calls * int(t.function.attrs["multiply_adds"]))


def default_schedule(function: Any, core: Core) -> Schedule:
    """Schedule a kernel with its first form's default numbers, written into the trace."""
    schedule = Schedule(tvm.IRModule({"main": function}), debug_mask="none")
    forms(function, core)[0](schedule, sampled(schedule, at_default=True))
    return schedule


def tune(  # noqa: PLR0913 - all but the first five by name
    tasks: Sequence[Task],
    known: Mapping[str, Record],
    score: Score,
    target: CompileTarget,
    log: Path,
    *,
    trials: int,
    seed: int,
    workers: Workers,
    report: Callable[[Sequence[Progress], int], None] = lambda *_: None,
    elsewhere: Mapping[str, Record] = MappingProxyType({}),
    seconds: float = math.inf,
) -> list[Progress]:
    """Search schedules for tasks until trials or time are spent or nothing is left to learn.

    Every improvement is on the disk before the next batch starts.

    Parameters
    ----------
    tasks : sequence of Task
        What to tune.
    known : mapping
        Best record so far of each key, of this score's source.
    score : Score
        Scores built candidates.
    target : CompileTarget
        What to build for.
    log : Path
        The records' file; appended to.
    trials : int
        How many candidates to try in all, over all tasks.
    seed : int
        The same seed and the same scores give the same schedules.
    workers : Workers
        Where candidates are built.
    report : Callable
        Called after every batch with the progress of all tasks and the trials spent.
    elsewhere : mapping
        Best record of each key from other sources: what is not known yet is tried first with it,
        since its own score says nothing here.
    seconds : float
        No batch starts after so long.

    Returns
    -------
    list of Progress
        One for each task.
    """
    states = [begin(task, known.get(task.key)) for task in tasks]
    searches: dict[str, TaskSearch] = {}
    cost_model = new_cost_model(seed)
    spent, until = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="candidates-") as scratch:
        bench = _Bench(score, target, Path(scratch), workers, log)
        for state in states:
            if spent < trials and state.best is None and time.monotonic() < until:
                spent += bench.try_first(state, elsewhere.get(state.task.key), trials - spent)
                report(states, spent)
        while spent < trials and time.monotonic() < until:
            if (promising := _most_promising(states)) is None:
                break
            state = promising
            search = searches.get(state.task.key)
            if search is None:
                search = searches[state.task.key] = TaskSearch(
                    state.task.function, target.core, target.tvm_target, cost_model, seed,
                    batch=BATCH,
                )  # fmt: skip
            spent += bench.try_batch(state, search, trials - spent)
            report(states, spent)
    return states


def begin(task: Task, known: Record | None = None) -> Progress:
    """Take up a task with what is known of it."""
    return Progress(task, best=known, before=known.score if known else None)


def _most_promising(states: Sequence[Progress]) -> Progress | None:
    """Pick the task with the largest share, less for each batch that taught nothing."""
    open_states = [state for state in states if not state.finished]
    return max(open_states, key=_promise, default=None)


def _promise(state: Progress) -> float:
    if state.best is None:
        return math.inf
    weight = state.task.calls * state.best.score
    return weight / (1 + state.trials / BATCH) / 2.0**state.stale


@dataclasses.dataclass(frozen=True)
class _Bench:
    """Builds, scores and writes down."""

    score: Score
    target: CompileTarget
    scratch: Path
    workers: Workers
    log: Path

    def try_first(self, state: Progress, elsewhere: Record | None, most: int) -> int:
        schedules = [default_schedule(state.task.function, self.target.core)]
        earlier = elsewhere and recorded_schedule(state.task.function, elsewhere)
        schedules += [earlier] if earlier is not None else []
        results = self.results(schedules[:most])
        self.keep(state, schedules[:most], results)
        state.start = state.before = results[0] if isinstance(results[0], float) else None
        return len(results)

    def try_batch(self, state: Progress, search: TaskSearch, most: int) -> int:
        candidates = search.propose()[:most]
        if not candidates:
            state.finished = True
            return 0
        before = state.best.score if state.best is not None else math.inf
        results = self.results([candidate.schedule for candidate in candidates])
        scores = [r if isinstance(r, float) else None for r in results]
        search.report(candidates, scores)
        self.keep(state, [candidate.schedule for candidate in candidates], results)
        after = state.best.score if state.best is not None else math.inf
        state.stale = 0 if after < before * (1 - SMALL_GAIN) else state.stale + 1
        state.finished = state.stale >= PATIENCE
        return len(candidates)

    def results(self, schedules: Sequence[Schedule]) -> list[float | str]:
        functions = [schedule.mod["main"] for schedule in schedules]
        built = build_candidates(functions, self.target, self.scratch, self.workers)
        good = [kernel for kernel in built if isinstance(kernel, KernelObject)]
        answers = self.score(good)
        if len(answers) != len(good):
            raise Failure(f"the device gave {len(answers)} scores for {len(good)} candidates")
        scores = iter([checked_score(answer) for answer in answers])
        for file in self.scratch.iterdir():
            file.unlink()
        return [next(scores) if isinstance(kernel, KernelObject) else kernel for kernel in built]

    def keep(
        self, state: Progress, schedules: Sequence[Schedule], results: Sequence[float | str]
    ) -> None:
        """Write the best of a batch down where it beats what is known, else the trials it cost."""
        state.trials += len(results)
        state.updated = time.monotonic()
        total = len(results) + (state.best.trials if state.best is not None else 0)
        found = [
            (result, schedule)
            for schedule, result in zip(schedules, results, strict=True)
            if not isinstance(result, str)
        ]
        for reason in (result for result in results if isinstance(result, str)):
            state.failures += 1
            state.last_failure = reason
        found.sort(key=lambda pair: pair[0])
        beaten = state.best.score if state.best is not None else math.inf
        fresh = [
            make_record(
                state.task.name, state.task.key, schedule, result, self.score.unit,
                self.score.source, total,
            )
            for place, (result, schedule) in enumerate(found)
            if (place == 0 and result < beaten) or self._enters_shortlist(state, result, place)
        ]  # fmt: skip
        if fresh and fresh[0].score < beaten:
            state.best = fresh.pop(0)
        if state.best is not None:
            state.best = dataclasses.replace(state.best, trials=total)
            known = [*state.shortlist, *(record.score for record in (*fresh, state.best))]
            state.shortlist = tuple(sorted(set(known))[:SHORTLIST])
            append(self.log, [*fresh, state.best])

    def _enters_shortlist(self, state: Progress, result: float, place: int) -> bool:
        """Whether it is to be measured when a device appears; what is measured needs none."""
        if self.score.unit == MEASURED_UNIT or place >= SHORTLIST:
            return False
        return len(state.shortlist) < SHORTLIST or result < state.shortlist[-1]


def checked_score(answer: object) -> float | str:
    """Take a device's answer for a score only if it can be one."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, float) and 0 < answer < LARGEST_SCORE:
        return answer
    return f"the device answered {answer!r}, which is no score"
