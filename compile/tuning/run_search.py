"""Spends a run's trials, minutes or shortlist on tasks, and says how far it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from tvm.s_tir import Schedule

from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.record_log import (
    Log,
    append,
    compact,
    preferred,
    read_log,
    replace_scores,
)
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record, recorded_schedule
from shuffledeploy.compiler.tuning.records.related_records import own_records, usable_records
from shuffledeploy.compiler.tuning.report.history import History, SearchResult
from shuffledeploy.compiler.tuning.report.progress_report import ProgressReport
from shuffledeploy.compiler.tuning.request import Request
from shuffledeploy.compiler.tuning.score import (
    MEASURED_UNIT,
    Devices,
    KernelObject,
    Score,
    checked_score,
    warnings_of,
)
from shuffledeploy.compiler.tuning.search.candidates import Workers, build_candidates
from shuffledeploy.compiler.tuning.search.tasks import Progress, Task, begin, default_schedule
from shuffledeploy.compiler.tuning.search.tuner import DEFAULT_TRIALS_A_TASK, tune
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.scratch import scratch_folder

UNLIMITED = 1 << 30


def search(
    request: Request,
    tasks: Sequence[Task],
    devices: Devices,
    device: str,
    log: Path,
    console: Console,
) -> SearchResult:
    """Tune tasks for as many trials and minutes as were asked for.

    Returns
    -------
    SearchResult
        What was tried and what came of it; empty where there was nothing to do.
    """
    known = own_records(request.log_folder, request.target)
    chosen = list(tasks)
    if request.trials is None and request.minutes is None:
        # With nothing said, kernels that have a record are left as they are.
        chosen = [task for task in tasks if task.key not in known]
    if request.trials == 0 or not chosen:
        return SearchResult()
    with devices.evaluation(request.target, device, request.score) as evaluation:
        records = read_log(log, evaluation.source).best
        trials = _trials(request, tasks, len(chosen), records)
        if trials is not None and trials <= 0:
            return SearchResult()
        seconds = math.inf if request.minutes is None else 60 * request.minutes
        history = History()
        evaluation.warm_up()
        with ProgressReport(console, "tuning", trials, seconds) as shown:

            def report(states: Sequence[Progress], spent: int) -> None:
                history.note(states, spent)
                shown(states, spent)

            states = tune(
                chosen, records, evaluation, request.target, log, seed=request.seed,
                trials=UNLIMITED if trials is None else trials, report=report,
                elsewhere=usable_records(request.log_folder, request.target),
                seconds=seconds,
            )  # fmt: skip
        warnings = tuple(evaluation.warnings)
    compact(log)
    return history.result(states, evaluation.unit, warnings)


def _trials(
    request: Request, tasks: Sequence[Task], chosen: int, records: Mapping[str, Record]
) -> int | None:
    """How many candidates are still to be tried; None where only the clock ends the run."""
    if request.trials is None:
        return DEFAULT_TRIALS_A_TASK * chosen if request.minutes is None else None
    # What earlier runs tried counts, so that the same command again learns nothing twice.
    return request.trials - sum(records[t.key].trials for t in tasks if t.key in records)


def measure_shortlist(
    request: Request,
    tasks: Sequence[Task],
    devices: Devices,
    device: str,
    log: Path,
    console: Console,
) -> SearchResult:
    """Time the best few of each task on a real device; what is fastest there is used from then on.

    What was measured before is measured again, with the default schedule: one after the other, a
    machine that is slower for a while makes schedules look so.

    Raises
    ------
    UsageError
        If the log has no shortlist for any of the tasks, or the device is emulated.
    """
    known = read_log(log)
    shortlists = {**measured(known), **unmeasured(known)}
    states = [begin(task) for task in tasks if task.key in shortlists]
    if not states:
        raise UsageError(f"{log} has no shortlist for this network: tune it first")
    history, total = History(), sum(len(shortlists[state.task.key]) for state in states)
    found: list[Record] = []
    with (
        devices.score(request.target, device, "latency") as score,
        Workers() as workers,
        ProgressReport(console, "measuring", total) as shown,
    ):
        for state in states:
            shortlist = shortlists[state.task.key]
            records, reasons = _measured(state.task, shortlist, score, request.target, workers)
            append(log, records)
            found += records
            used = preferred(shortlist)
            state.note_before(next((r.score for r in records if r.trace == used.trace), None))
            state.note_trials([*(record.score for record in records), *reasons])
            if records:
                state.note_best(min(records, key=lambda record: record.score))
            history.note(states, sum(state.trials for state in states))
            shown(states, sum(state.trials for state in states))
        warnings = warnings_of(score)
    replace_scores(log, found)
    return history.result(states, MEASURED_UNIT, warnings)


def measured(log: Log) -> dict[str, tuple[Record, ...]]:
    """Give what was measured of each key, by whatever source, the latest first."""
    lists: dict[str, tuple[Record, ...]] = {}
    for records in log.shortlists:
        if records[0].unit == MEASURED_UNIT:
            lists[records[0].key] = records + lists.get(records[0].key, ())
    return lists


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
    """Build and time the schedules of a shortlist, and the default beside what was measured."""
    schedules = [recorded_schedule(task.function, record) for record in shortlist]
    fitting = [schedule for schedule in schedules if schedule is not None]
    trials = len(fitting)
    if shortlist[0].unit == MEASURED_UNIT:
        trials = max(record.trials for record in shortlist)
        fitting.append(default_schedule(task.function, target.core))
        fitting = list({str(schedule.mod["main"]): schedule for schedule in fitting}.values())
    tried = timed_schedules([(task, s, trials) for s in fitting], score, target, workers)
    reasons = ["its schedule does not fit the kernel"] * schedules.count(None)
    reasons += [reason for reason in tried if isinstance(reason, str)]
    return [record for record in tried if isinstance(record, Record)], reasons


def timed_schedules(
    schedules: Sequence[tuple[Task, Schedule, int]],
    score: Score,
    target: CompileTarget,
    workers: Workers,
) -> list[Record | str]:
    """Build and score schedules of kernels, each with the trials that it is the outcome of.

    Returns
    -------
    list of Record or str
        Of each its record, or the reason why it has none.
    """
    functions = [schedule.mod["main"] for _, schedule, _ in schedules]
    results: list[Record | str] = []
    with scratch_folder("schedules-") as scratch:
        built = build_candidates(functions, target, scratch, workers, checks=False)
        answers = iter(score([kernel for kernel in built if isinstance(kernel, KernelObject)]))
        for (task, schedule, trials), kernel in zip(schedules, built, strict=True):
            result = checked_score(next(answers)) if isinstance(kernel, KernelObject) else kernel
            results.append(
                result
                if isinstance(result, str)
                else make_record(
                    task.name, task.key, schedule, result, score.unit, score.source, trials
                )
            )
    return results
