"""A whole run: groups one after another, each written to the file as soon as it is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shuffledeploy.deploy.benchmark.benchmark_plan import SubjectGroup
from shuffledeploy.deploy.benchmark.benchmark_progress import progress
from shuffledeploy.deploy.benchmark.document import merged, part_key, read_parts, to_document
from shuffledeploy.deploy.benchmark.measurement import Prepared, Start, measure_group
from shuffledeploy.deploy.benchmark.preparation import prepare
from shuffledeploy.deploy.benchmark.settings import Settings
from shuffledeploy.deploy.benchmark.worker_process import WorkerProcess
from shuffledeploy.model.command_output import write_json

Prepare = Callable[[SubjectGroup, Callable[[str], None]], Prepared]


def run_groups(
    groups: Sequence[SubjectGroup],
    settings: Settings,
    results: Path,
    *,
    fresh: bool = False,
    prepare: Prepare = prepare,
    start: Start = WorkerProcess,
) -> dict[str, Any]:
    """Measure what is not finished yet.

    Parameters
    ----------
    groups : sequence of SubjectGroup
        What to measure.
    settings : Settings
        How many rounds of how many runs.
    results : Path
        The JSON file: earlier parts are taken from it, each new one is written to it.
    fresh : bool
        Measure all again.
    prepare, start : Callable
        Make a group's files; start a worker.

    Returns
    -------
    dict
        The document, see the README.
    """
    kept = read_parts(results)
    current: list[dict[str, Any]] = []
    engines = list(dict.fromkeys(name for group in groups for name in group.engines))
    with progress(groups, settings.rounds * (settings.runs + settings.warm)) as report:
        for place, group in enumerate(groups):

            def tell(what: str | None, share: float = 0.0, place: int = place) -> None:
                report(place, what, share)

            prepared = prepare(group, tell)
            key = part_key(group, prepared.bundles, settings)
            part = None if fresh else kept.get(key)
            if part is None:
                part = _measured(group, prepared, settings, tell, start)
                kept = merged(kept, key, part)
            current.append(part)
            write_json(results, to_document(current, kept, engines))
            tell(None, 1.0)
    return to_document(current, kept, engines)


def _measured(
    group: SubjectGroup, prepared: Prepared, settings: Settings, tell: Any, start: Start
) -> dict[str, Any]:
    began = time.monotonic()
    part = measure_group(group, prepared, settings, tell, start)
    return {
        **part,
        "seconds": time.monotonic() - began,
        "models": list(group.models),
        "resolution": group.resolution,
        "threads": group.threads,
        "engines": list(group.engines),
    }
