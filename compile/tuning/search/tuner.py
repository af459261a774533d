"""Tuning a network: candidates are proposed, built, scored and written down."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Any

from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.score import Evaluation
from shuffledeploy.compiler.tuning.search.keeping import Keeper
from shuffledeploy.compiler.tuning.search.tasks import Progress, Task, begin
from shuffledeploy.compiler.tuning.search.trial_plan import Batch, TrialPlan

DEFAULT_TRIALS_A_TASK = 32
# Batches that are built while one is scored.
AHEAD = 1


def tune(  # noqa: PLR0913 - all but the first five by name
    tasks: Sequence[Task],
    known: Mapping[str, Record],
    evaluation: Evaluation,
    target: CompileTarget,
    log: Path,
    *,
    trials: int,
    seed: int,
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
        Best record so far of each key, of these scores' source.
    evaluation : Evaluation
        Builds candidates and scores them.
    target : CompileTarget
        What to build for.
    log : Path
        The records' file; appended to.
    trials : int
        How many candidates to try in all, over all tasks.
    seed : int
        The same seed and the same scores give the same schedules.
    report : Callable
        Called after every batch with the progress of all tasks and the trials spent.
    elsewhere : mapping
        Best record of each key from other sources: what is not known yet is tried first with it,
        since its own score says nothing here.
    seconds : float
        What is under way after so long is the last batch.

    Returns
    -------
    list of Progress
        One for each task.
    """
    states = [begin(task, known.get(task.key)) for task in tasks]
    until = time.monotonic() + seconds
    plan = TrialPlan(states, elsewhere, target, seed)
    keep = Keeper(log, evaluation.unit, evaluation.source)
    waiting: deque[tuple[Batch, Future[Any]]] = deque()
    current: tuple[Batch, Future[list[float | str]]] | None = None
    while True:
        # What is proposed when depends on nothing but the scores: the same seed, the same run.
        while len(waiting) < AHEAD and plan.committed < trials and time.monotonic() < until:
            if (batch := plan.next(trials - plan.committed)) is None:
                break
            waiting.append((batch, evaluation.build([s.mod["main"] for s in batch.schedules])))
        tried = any(state.trials for state in states)
        if tried and time.monotonic() >= until:
            # What was built ahead would be scored after the time is up.
            waiting.clear()
        if current is None:
            if not waiting:
                return states
            batch, built = waiting.popleft()
            current = batch, evaluation.score(built)
            continue
        batch, answers = current
        results = answers.result()
        gained = keep(batch, results)
        # On the disk: only now the next are scored.
        current = None
        if waiting and time.monotonic() < until:
            following, built = waiting.popleft()
            current = following, evaluation.score(built)
        plan.learn(batch, results, gained)
        report(states, sum(state.trials for state in states))
