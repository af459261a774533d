"""Tasks: the kernels of a network that are worth tuning, and how far each has come."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

import tvm
from tvm.s_tir import Schedule

from shuffledeploy.compiler.kernels.images import images_of, one_image
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.lowered_network import Lowered
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.recorded_schedules import kernel_key
from shuffledeploy.compiler.tuning.search.evolution import sampled


@dataclasses.dataclass(frozen=True)
class Task:
    """A kernel worth tuning.

    Attributes
    ----------
    name, key : str
        Of the kernel.
    function : tirx.PrimFunc
        Unscheduled, of one image.
    calls : int
        How often one inference computes it, each image of a batch counted.
    """

    name: str
    key: str
    function: Any
    calls: int


@dataclasses.dataclass
class Progress:
    """How far one task has come; handed to the caller after every batch.

    Its fields are written by its own methods alone.

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

    def note_trials(self, results: Sequence[float | str]) -> None:
        """Count what was tried: a score, or the reason why there is none."""
        reasons = [result for result in results if isinstance(result, str)]
        self.trials += len(results)
        self.failures += len(reasons)
        self.last_failure = reasons[-1] if reasons else self.last_failure
        self.updated = time.monotonic()

    def note_best(self, best: Record, scores: Iterable[float] = (), most: int = 0) -> None:
        """Take up the best record, and the scores of the shortlist, at most so many."""
        self.best = best
        self.shortlist = tuple(sorted({*self.shortlist, *scores})[:most])

    def note_start(self, default: float | None) -> None:
        """Take up what the form's default numbers scored in this run."""
        self.start = self.before = default

    def note_before(self, score: float | None) -> None:
        """Take up what was used when the run began, as it scores in this run."""
        self.before = score

    def note_batch(self, gained: bool, patience: int) -> None:
        """Take up whether a batch gained; after so many that did not the task is left alone."""
        self.stale = 0 if gained else self.stale + 1
        self.finished = self.stale >= patience

    def leave(self) -> None:
        """Leave the task alone: nothing of it is left to try."""
        self.finished = True


def begin(task: Task, known: Record | None = None) -> Progress:
    """Take up a task with what is known of it."""
    return Progress(task, best=known, before=known.score if known else None)


def find_tasks(lowered: Lowered, target: CompileTarget) -> list[Task]:
    """List the kernels that have forms to search, one task for equal code, the heaviest first."""
    tasks: dict[str, Task] = {}
    for name, kernel in lowered.kernels.items():
        function = one_image(kernel)
        if not forms(function, target.core):
            continue
        key, calls = kernel_key(function), lowered.calls.count(name) * images_of(kernel)
        if key in tasks:
            calls += tasks[key].calls
        tasks[key] = Task(name, key, function, calls)
    return sorted(tasks.values(), key=lambda t: -t.calls * int(t.function.attrs["multiply_adds"]))


def default_schedule(function: Any, core: Core) -> Schedule:
    """Schedule a kernel with its first form's default numbers, written into the trace."""
    schedule = Schedule(tvm.IRModule({"main": function}), debug_mask="none")
    forms(function, core)[0](schedule, sampled(schedule, at_default=True))
    return schedule
