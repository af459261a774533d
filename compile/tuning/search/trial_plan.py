"""Which kernel gets the next trials, and when it is enough."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Mapping, Sequence

from tvm.s_tir import Schedule

from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.recorded_schedules import recorded_schedule
from shuffledeploy.compiler.tuning.search.evolution import Candidate, CostModel, TaskSearch
from shuffledeploy.compiler.tuning.search.tasks import Progress, Task, default_schedule

BATCH = 16
# Batches without a gain after which a task is left alone.
PATIENCE = 3


@dataclasses.dataclass(frozen=True)
class Batch:
    """Candidates that are built and scored together: of one search, or the first of several tasks.

    Attributes
    ----------
    states : tuple of Progress
        Whose candidate each is.
    schedules : tuple of Schedule
        The candidates.
    candidates : tuple of Candidate
        The same as the search proposed them; empty where they are the first of their tasks.
    """

    states: tuple[Progress, ...]
    schedules: tuple[Schedule, ...]
    candidates: tuple[Candidate, ...] = ()

    def members(self) -> list[tuple[Progress, list[int]]]:
        """List the tasks, each with the places of its candidates."""
        places: dict[str, tuple[Progress, list[int]]] = {}
        for place, state in enumerate(self.states):
            places.setdefault(state.task.key, (state, []))[1].append(place)
        return list(places.values())


class TrialPlan:
    """Which candidates come next; tasks that have some under way are left out."""

    def __init__(
        self, states: Sequence[Progress], elsewhere: Mapping[str, Record], target: CompileTarget,
        seed: int,
    ) -> None:  # fmt: skip
        self._states, self._elsewhere = states, elsewhere
        self._target, self._seed = target, seed
        self._searches: dict[str, TaskSearch] = {}
        self._cost_model = CostModel(seed)
        self._untried = deque(state for state in states if state.best is None)
        self._busy: list[Progress] = []
        self.committed = 0

    def next(self, most: int) -> Batch | None:
        """Give the next candidates; None where there are none, or none until scores come in."""
        batch = self._first(most) if self._untried else self._proposed(most)
        if batch is not None:
            self._busy += [state for state, _ in batch.members()]
            self.committed += len(batch.schedules)
        return batch

    def _first(self, most: int) -> Batch:
        """Take each task's default, and what is known of it from elsewhere."""
        states: list[Progress] = []
        schedules: list[Schedule] = []
        while self._untried and len(schedules) < min(most, BATCH):
            state = self._untried.popleft()
            function = state.task.function
            own = [default_schedule(function, self._target.core)]
            record = self._elsewhere.get(state.task.key)
            earlier = record and recorded_schedule(function, record)
            own += [earlier] if earlier is not None else []
            states += [state] * len(own)
            schedules += own
        return Batch(tuple(states[:most]), tuple(schedules[:most]))

    def _proposed(self, most: int) -> Batch | None:
        while True:
            busy = {state.task.key for state in self._busy}
            free = [s for s in self._states if not s.finished and s.task.key not in busy]
            state = max(free, key=_promise, default=None)
            if state is None:
                return None
            candidates = self._search(state.task).propose()[:most]
            if candidates:
                schedules = tuple(candidate.schedule for candidate in candidates)
                return Batch((state,) * len(candidates), schedules, tuple(candidates))
            state.leave()

    def _search(self, task: Task) -> TaskSearch:
        if task.key not in self._searches:
            self._searches[task.key] = TaskSearch(
                task.function, self._target.core, self._target.tvm_target, self._cost_model,
                self._seed, batch=BATCH,
            )  # fmt: skip
        return self._searches[task.key]

    def learn(
        self, batch: Batch, results: Sequence[float | str], gained: Mapping[str, bool]
    ) -> None:
        """Tell the search what came of its batch; tasks that stopped learning are left alone."""
        members = batch.members()
        ended = {state.task.key for state, _ in members}
        self._busy = [state for state in self._busy if state.task.key not in ended]
        if not batch.candidates:
            for state, places in members:
                first = results[places[0]]
                state.note_start(first if isinstance(first, float) else None)
            return
        (state,) = (state for state, _ in members)
        scores = [result if isinstance(result, float) else None for result in results]
        self._search(state.task).report(batch.candidates, scores)
        state.note_batch(gained[state.task.key], PATIENCE)


def _promise(state: Progress) -> float:
    """Rank by the task's share, less for each batch that taught nothing."""
    if state.best is None:
        return math.inf
    weight = state.task.calls * state.best.score
    return weight / (1 + state.trials / BATCH) / 2.0**state.stale
