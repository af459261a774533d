"""Spends a run's trials, minutes or shortlist on tasks, with a bar that says how far it is."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from compile.targets import CompileTarget
from compile.tuning.candidates import Workers, build_candidates
from compile.tuning.records import (
    MEASURED_UNIT,
    Log,
    Record,
    append,
    compact,
    make_record,
    read_log,
    recorded_schedule,
)
from compile.tuning.request import Request
from compile.tuning.score import Devices, KernelObject, Score
from compile.tuning.tuner import DEFAULT_TRIALS_A_TASK, Task, checked_score, tune
from compile.tuning.tuner import Progress as TaskProgress
from model.errors import UsageError

UNLIMITED = 1 << 30


def search(
    request: Request,
    tasks: Sequence[Task],
    devices: Devices,
    device: str,
    log: Path,
    console: Console,
) -> tuple[int, tuple[str, ...]]:
    """Tune tasks for as many trials and minutes as were asked for.

    Returns
    -------
    tuple
        How many candidates were tried; the tasks of which none worked, each with the last reason.
    """
    known = read_log(log).best
    chosen = list(tasks)
    if request.trials is None and request.minutes is None:
        # With nothing said, kernels that have a record are left as they are.
        chosen = [task for task in tasks if task.key not in known]
    if request.trials == 0 or not chosen:
        return 0, ()
    append(log, [])  # that it cannot be written shows now, not after the first batch
    with devices.score(request.target, device, request.score) as score:
        records = read_log(log, score.source).best
        if request.trials is not None:
            # What earlier runs tried counts, so that the same command again learns nothing twice.
            trials = request.trials - sum(
                records[task.key].trials for task in tasks if task.key in records
            )
        else:
            trials = DEFAULT_TRIALS_A_TASK * len(chosen) if request.minutes is None else UNLIMITED
        if trials <= 0:
            return 0, ()
        with Workers() as workers, _bar(console) as bar:
            total = None if trials == UNLIMITED else trials
            row = bar.add_task("tuning", total=total, what="", gain="")

            def report(states: Sequence[TaskProgress], spent: int) -> None:
                last = max(states, key=lambda state: state.updated)
                bar.update(row, completed=spent, what=last.task.name, gain=_gain(states))

            states = tune(
                chosen, records, score, request.target, log, trials=trials, seed=request.seed,
                workers=workers, report=report, elsewhere=known,
                seconds=math.inf if request.minutes is None else 60 * request.minutes,
            )  # fmt: skip
    compact(log)
    failed = tuple(
        f"{state.task.name}: {state.last_failure}"
        for state in states
        if 0 < state.trials == state.failures
    )
    return sum(state.trials for state in states), failed


def measure_shortlist(
    request: Request,
    tasks: Sequence[Task],
    devices: Devices,
    device: str,
    log: Path,
    console: Console,
) -> tuple[int, tuple[str, ...]]:
    """Time the best few of each task on a real device; what is fastest there is used from then on.

    Raises
    ------
    UsageError
        If the log has no shortlist for any of the tasks, or the device is emulated.
    """
    shortlists = unmeasured(read_log(log))
    chosen = [task for task in tasks if task.key in shortlists]
    if not chosen:
        raise UsageError(f"{log} has no shortlist for this network: tune it first")
    count, failed = 0, []
    with (
        devices.score(request.target, device, "latency") as score,
        Workers() as workers,
        _bar(console) as bar,
    ):
        row = bar.add_task("measuring", total=len(chosen), what="", gain="")
        for task in chosen:
            bar.update(row, what=task.name)
            records, reasons = _measured(task, shortlists[task.key], score, request.target, workers)
            append(log, records)
            count += len(records)
            if not records:
                failed.append(f"{task.name}: {reasons[-1] if reasons else 'no schedule fits'}")
            bar.advance(row)
    compact(log)
    return count, tuple(failed)


def unmeasured(log: Log) -> dict[str, tuple[Record, ...]]:
    """Give the shortlist of each key: of estimated scores, else of counted ones."""
    lists = [records for records in log.shortlists if records[0].unit != MEASURED_UNIT]
    lists.sort(key=lambda records: (records[0].trust, records[0].date))
    return {records[0].key: records for records in lists}


def _measured(
    task: Task,
    shortlist: Sequence[Record],
    score: Score,
    target: CompileTarget,
    workers: Workers,
) -> tuple[list[Record], list[str]]:
    """Build and time the schedules of a shortlist."""
    schedules = [recorded_schedule(task.function, record) for record in shortlist]
    fitting = [schedule for schedule in schedules if schedule is not None]
    functions = [schedule.mod["main"] for schedule in fitting]
    records, reasons = [], []
    with tempfile.TemporaryDirectory(prefix="shortlist-") as scratch:
        built = build_candidates(functions, target, Path(scratch), workers)
        good = [kernel for kernel in built if isinstance(kernel, KernelObject)]
        answers = iter(score(good))
        for schedule, kernel in zip(fitting, built, strict=True):
            result = checked_score(next(answers)) if isinstance(kernel, KernelObject) else kernel
            if isinstance(result, str):
                reasons.append(result)
            else:
                records.append(make_record(
                    task.name, task.key, schedule, result, score.unit, score.source, len(fitting)
                ))  # fmt: skip
    return records, reasons


def _gain(states: Sequence[TaskProgress]) -> str:
    scored = [state for state in states if state.start is not None and state.best is not None]
    before = sum(state.task.calls * (state.start or 0) for state in scored)
    after = sum(state.task.calls * state.best.score for state in scored if state.best is not None)
    return f"{before / after:.2f}x" if after else ""


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description} {task.fields[what]:<32.32}"), BarColumn(14),
        TextColumn("{task.completed}/{task.total}"), TextColumn("{task.fields[gain]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console,
    )  # fmt: skip
