"""What a search did to a network: its score over time, and each kernel before and after."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

from shuffledeploy.compiler.tuning.search.tasks import Progress


@dataclasses.dataclass(frozen=True)
class Moment:
    """The network's score at a moment: over the kernels, calls times the best score so far.

    Attributes
    ----------
    seconds : float
        Since the search began.
    trials : int
        Candidates tried by then.
    score : float
        In the unit of the search.
    """

    seconds: float
    trials: int
    score: float


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """What became of one kernel.

    Attributes
    ----------
    kernel : str
        Its name.
    calls : int
        Of one inference.
    share : float
        Its part of the network's score at the end; 0 where it has none.
    before, after : float or None
        Score of one call: of the schedule known when the search began (the form's default numbers
        where none was), and of the best.
    trials, failures : int
        Candidates of it tried in this run, and how many of them gave no score.
    """

    kernel: str
    calls: int
    share: float
    before: float | None
    after: float | None
    trials: int
    failures: int


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What came of a search.

    Attributes
    ----------
    trials : int
        Candidates tried.
    unit : str
        Of the scores; empty where nothing was scored.
    tasks : tuple of TaskResult
        The heaviest first; only those that the search could have tried.
    curve : tuple of Moment
        From the moment when each kernel had a score. Kernels that never got one are left out of
        every moment.
    failed : tuple of str
        Kernels of which no candidate worked, each with the last reason.
    warnings : tuple of str
        What the user must know of the devices.
    """

    trials: int = 0
    unit: str = ""
    tasks: tuple[TaskResult, ...] = ()
    curve: tuple[Moment, ...] = ()
    failed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields documented in the README."""
        return {
            "unit": self.unit,
            "tasks": [dataclasses.asdict(task) for task in self.tasks],
            "curve": [dataclasses.asdict(moment) for moment in self.curve],
            "failed": list(self.failed),
            "warnings": list(self.warnings),
        }


class History:
    """Notes the best score of each task after every batch."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._notes: list[tuple[float, int, tuple[float | None, ...]]] = []

    def note(self, states: Sequence[Progress], spent: int) -> None:
        """Write down how far the tasks are."""
        best = tuple(state.best.score if state.best else None for state in states)
        self._notes.append((time.monotonic() - self._began, spent, best))

    def result(
        self, states: Sequence[Progress], unit: str, warnings: Sequence[str] = ()
    ) -> SearchResult:
        """Sum up a search that is over."""
        scored = [i for i, state in enumerate(states) if state.best is not None]
        curve = []
        for seconds, spent, best in self._notes:
            known = [(states[i].task.calls, best[i]) for i in scored]
            total = sum(calls * score for calls, score in known if score is not None)
            if known and all(score is not None for _, score in known):
                curve.append(Moment(round(seconds, 2), spent, total))
        return SearchResult(
            sum(state.trials for state in states), unit, task_results(states), tuple(curve),
            tuple(f"{state.task.name}: {state.last_failure}" for state in states
                  if 0 < state.trials == state.failures),
            tuple(warnings),
        )  # fmt: skip


def task_results(states: Sequence[Progress]) -> tuple[TaskResult, ...]:
    """Say what became of each task so far, the heaviest first."""
    costs = [state.task.calls * state.best.score if state.best else 0.0 for state in states]
    total = sum(costs) or 1.0
    rows = [
        TaskResult(
            state.task.name, state.task.calls, cost / total, state.before,
            state.best.score if state.best else None, state.trials, state.failures,
        )
        for state, cost in zip(states, costs, strict=True)
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: -row.share))


def gain(tasks: Sequence[TaskResult]) -> float | None:
    """Tell how many times better the kernels got that have a score from before and after."""
    pairs = [(t.calls, t.before, t.after) for t in tasks]
    before = math.fsum(calls * b for calls, b, a in pairs if b is not None and a is not None)
    after = math.fsum(calls * a for calls, b, a in pairs if b is not None and a is not None)
    return before / after if after else None
