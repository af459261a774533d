"""Measures one group: starts its workers, checks what they answer, runs the rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.deploy.benchmark.answers import Question, WrongAnswer, check
from shuffledeploy.deploy.benchmark.benchmark_plan import Subject, SubjectGroup
from shuffledeploy.deploy.benchmark.conversion import model_mb
from shuffledeploy.deploy.benchmark.engines import ENGINES, OURS
from shuffledeploy.deploy.benchmark.kernel_table import tabulate
from shuffledeploy.deploy.benchmark.processor import (
    benchmark_cores,
    core_times,
    out_of_the_way,
    stolen_share,
)
from shuffledeploy.deploy.benchmark.rounds import Pair, Samples, measure
from shuffledeploy.deploy.benchmark.settings import Settings
from shuffledeploy.deploy.benchmark.subject_networks import short_name
from shuffledeploy.deploy.benchmark.summaries import judge_noise, ratio_by_rounds, summarise
from shuffledeploy.deploy.benchmark.worker_process import Asked, WorkerProcess
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.registry import twin

Tell = Callable[[str | None, float], None]
Start = Callable[[str, Sequence[int], int], Asked]


@dataclass(frozen=True)
class Prepared:
    """What a group's workers need: files by subject, and what PyTorch answers.

    Attributes
    ----------
    bundles : dict
        Ours, by network, twins among them.
    questions : dict
        By network.
    files : dict
        By subject; absent where a converter failed.
    failed : dict
        Subjects whose converter failed, and how.
    native : dict
        The compiled ``roofline`` and ``instrument``.
    """

    bundles: dict[str, Bundle]
    questions: dict[str, list[Question]]
    files: dict[Subject, dict[str, str]]
    failed: dict[Subject, str] = field(default_factory=dict)
    native: dict[str, str] = field(default_factory=dict)


@dataclass
class _Team:
    """The workers of a group that are fit to be measured."""

    subjects: dict[Subject, Asked] = field(default_factory=dict)
    errors: dict[Subject, float] = field(default_factory=dict)
    excluded: dict[Subject, str] = field(default_factory=dict)
    kernels: dict[str, Asked] = field(default_factory=dict)
    ceilings: Asked | None = None


def measure_group(
    group: SubjectGroup,
    prepared: Prepared,
    settings: Settings,
    tell: Tell,
    start: Start = WorkerProcess,
) -> dict[str, Any]:
    """Measure a group.

    Parameters
    ----------
    group : SubjectGroup
        What takes turns.
    prepared : Prepared
        Its files.
    settings : Settings
        How many rounds of how many runs.
    tell : Callable
        Told what is being done (or None), and the share of the group that is done.
    start : Callable
        Starts a worker: its name, cores, threads.

    Returns
    -------
    dict
        The group's part of the JSON document.
    """
    cores = benchmark_cores(group.threads)
    with ExitStack() as stack, out_of_the_way(cores):

        def begin(name: str) -> Asked:
            worker = start(name, cores, group.threads)
            stack.callback(worker.close)
            return worker

        tell(f"{group.name}: starting engines", 0.0)
        team = _assemble(group, prepared, begin, tell)
        before = core_times(cores)
        samples = measure(
            team.subjects, team.kernels, team.ceilings, settings,
            lambda share: tell(f"{group.name}: round", share), _pairs(group, team.subjects),
        )  # fmt: skip
        stolen = stolen_share(before, core_times(cores))
        team.excluded.update(samples.lost)
        part = _part(group, prepared, team, samples, stolen)
    return part


def _assemble(
    group: SubjectGroup, prepared: Prepared, begin: Callable[[str], Asked], tell: Tell
) -> _Team:
    """Start a worker for each subject and keep those that answer as PyTorch does."""
    team = _Team(excluded=dict(prepared.failed))
    for subject in group.subjects:
        if subject not in prepared.files:
            continue
        tell(f"{subject.name}: checking its answers", 0.0)
        worker = begin(subject.name)
        asked = prepared.questions[subject.model]
        try:
            _load(worker, ENGINES[subject.engine].module, prepared.files[subject], asked, group)
            team.errors[subject] = check(worker, asked)
        except WrongAnswer as wrong:
            team.excluded[subject] = f"WRONG ANSWER: {wrong}"
        except Failure as failure:
            team.excluded[subject] = str(failure)
        else:
            team.subjects[subject] = worker
            continue
        worker.close()
    any_question = next(iter(prepared.questions.values()))
    if "roofline" in prepared.native:
        team.ceilings = begin("the core's ceilings")
        module = "shuffledeploy.deploy.benchmark.roofline_engine"
        _load(team.ceilings, module, prepared.native, any_question, group)
    if "instrument" in prepared.native and group.threads == 1:
        for subject in team.subjects:
            if subject.engine == OURS and subject.model in group.models:
                worker = team.kernels[subject.model] = begin(f"{subject.name}, kernels")
                files = {**prepared.files[subject], **prepared.native}
                asked = prepared.questions[subject.model]
                _load(worker, "shuffledeploy.deploy.benchmark.kernel_engine", files, asked, group)
    return team


def _load(
    worker: Asked,
    module: str,
    files: Mapping[str, str],
    asked: Sequence[Question],
    group: SubjectGroup,
) -> None:
    worker.ask(
        "load", module=module, files=dict(files), image=str(asked[0].image), threads=group.threads
    )


def _part(
    group: SubjectGroup, prepared: Prepared, team: _Team, samples: Samples, stolen: float | None
) -> dict[str, Any]:
    ceilings = _ceilings(samples)
    seconds = samples.seconds
    noise = judge_noise(
        {subject.name: rounds for subject, rounds in seconds.items()},
        [one["multiply_adds_per_s"] for one in samples.ceilings], stolen,
    )  # fmt: skip
    kernels, overheads = [], []
    for model, times in samples.kernels.items():
        calls = team.kernels[model].ask("ask", method="calls")
        manifest = prepared.bundles[model].manifest
        rows, overhead = tabulate(
            short_name(model), group.resolution, calls, times, manifest, ceilings
        )
        kernels += [asdict(row) for row in rows]
        overheads.append(overhead.to_json())
    return {
        "name": group.name,
        "rows": [_row(subject, rounds, team) for subject, rounds in seconds.items()],
        "memory": [_memory(s, team.subjects[s], prepared.files[s]) for s in seconds],
        "excluded": [
            {"engine": s.engine, "model": s.title, "resolution": s.resolution,
             "threads": s.threads, "reason": reason}
            for s, reason in team.excluded.items()
        ],
        "ceilings": ceilings,
        "shuffle_cost": {
            network.title: ratio_by_rounds(*sides)
            for (network, other), sides in samples.pairs.items()
            if network in seconds and other in seconds
        },
        "share_of_peak": _shares(group, prepared, seconds, ceilings),
        "kernels": kernels,
        "virtual_machine": overheads,
        "records": [_records(b, group) for b in prepared.bundles.values()],
        "noise": {
            **noise.to_json(),
            "models": [short_name(model) for model in group.models],
            "resolution": group.resolution,
            "threads": group.threads,
        },
    }  # fmt: skip


def _ceilings(samples: Samples) -> dict[str, Any] | None:
    if not samples.ceilings:
        return None
    medians = {
        name: float(np.median([one[name] for one in samples.ceilings]))
        for name in ("multiply_adds_per_s", "bytes_per_s")
    }
    last = samples.ceilings[-1]
    return {**medians, "loop": last["loop"], "streams": last["streams"]}


def _row(subject: Subject, rounds: Sequence[Sequence[float]], team: _Team) -> dict[str, Any]:
    return {
        "model": subject.title,
        "resolution": subject.resolution,
        "engine": subject.engine,
        "engine_version": ENGINES[subject.engine].version,
        "threads": subject.threads,
        "kind": "measured",
        **asdict(summarise(rounds)),
        "max_abs_error": team.errors[subject],
    }


def _memory(subject: Subject, worker: Asked, files: Mapping[str, str]) -> dict[str, Any]:
    told = worker.ask("memory")
    return {
        "model": subject.title,
        "resolution": subject.resolution,
        "engine": subject.engine,
        "threads": subject.threads,
        "kind": "measured",
        "peak_mb": told["peak_kb"] / 1024,
        "running_mb": told["running_kb"] / 1024,
        "bare_python_mb": told["bare_kb"] / 1024,
        "engine_library_mb": sum(told["libraries"].values()) / 2**20,
        "model_mb": model_mb(files),
        "libraries": sorted(Path(path).name for path in told["libraries"]),
    }


def _pairs(group: SubjectGroup, subjects: Mapping[Subject, Any]) -> list[Pair]:
    """List our networks that have a twin without shuffles, with it."""
    pairs = [
        (
            Subject(OURS, model, group.size, group.threads),
            Subject(OURS, twin(model) or "", group.size, group.threads),
        )
        for model in group.models
    ]
    return [pair for pair in pairs if all(subject in subjects for subject in pair)]


def _shares(
    group: SubjectGroup, prepared: Prepared, seconds: Mapping[Subject, Any], ceilings: Any
) -> dict[str, float]:
    shares = {}
    for model in group.models:
        subject = Subject(OURS, model, group.size, group.threads)
        if subject in seconds and ceilings and group.threads == 1:
            work = prepared.bundles[model].manifest.multiply_adds
            took = summarise(seconds[subject]).median_ms * 1e-3
            shares[subject.title] = work / took / ceilings["multiply_adds_per_s"]
    return shares


def _records(bundle: Bundle, group: SubjectGroup) -> dict[str, Any]:
    return {
        "model": bundle.manifest.network,
        "resolution": group.resolution,
        "target": bundle.manifest.target,
        "kernels": len(bundle.manifest.kernels),
        "with_record": bundle.manifest.kernels_with_record,
    }
