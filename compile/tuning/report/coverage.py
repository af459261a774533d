"""What a log covers: the tasks of networks beside the records that are kept for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shuffledeploy.compiler.frontend.program import load_program
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.record_log import Log
from shuffledeploy.compiler.tuning.records.recorded_schedules import apply_record
from shuffledeploy.compiler.tuning.search.tasks import find_tasks
from shuffledeploy.compiler.zoo import trace_network


@dataclasses.dataclass(frozen=True)
class KnownKernel:
    """A kernel that some network has.

    Attributes
    ----------
    name, key : str
        Of the kernel; equal code in several networks has one key.
    function : tirx.PrimFunc
        Unscheduled.
    calls : mapping
        How often one inference of each network calls it.
    """

    name: str
    key: str
    function: Any
    calls: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class TaskCoverage:
    """A task and what is known of it.

    Attributes
    ----------
    kernel : KnownKernel
        The kernel.
    weight : float
        Its largest part of a network: of the scores where all tasks have one of the same kind, else
        of the multiply-adds.
    record : Record or None
        The one that would be used.
    """

    kernel: KnownKernel
    weight: float
    record: Record | None


def known_kernels(
    target: CompileTarget,
    models: Sequence[str],
    programs: Sequence[Path] = (),
    resolutions: Sequence[tuple[int, int] | None] = (None,),
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, KnownKernel]:
    """List the tunable kernels of networks, by key (about 6 s a network).

    Parameters
    ----------
    target : CompileTarget
        What they are lowered for.
    models : sequence of str
        Networks of the zoo.
    programs : sequence of Path
        Saved programs.
    resolutions : sequence
        Of the zoo's networks: height and width, None for a network's own.
    progress : Callable
        Told what is being lowered.
    """
    found: dict[str, KnownKernel] = {}

    def add(network: str, exported: Any) -> None:
        progress(f"lowering {network}")
        for task in find_tasks(lower(exported, target), target):
            known = found.get(task.key, KnownKernel(task.name, task.key, task.function, {}))
            calls = {**known.calls, network: task.calls}
            found[task.key] = dataclasses.replace(known, calls=calls)

    for resolution in resolutions:
        size = f"-{resolution[0]}x{resolution[1]}" if resolution else ""
        for model in models:
            add(model + size, trace_network(model, resolution))
    for program in programs:
        add(program.stem, load_program(program))
    return found


def covered(kernels: Mapping[str, KnownKernel], log: Log) -> list[TaskCoverage]:
    """Set each kernel beside its record, the heaviest first."""
    best = log.best
    weights = dict.fromkeys(kernels, 0.0)
    for network in sorted({name for kernel in kernels.values() for name in kernel.calls}):
        tasks = [kernel for kernel in kernels.values() if network in kernel.calls]
        records = [best[task.key] for task in tasks if task.key in best]
        one_kind = len(records) == len(tasks) and len({r.unit for r in records}) == 1
        costs = {
            task.key: task.calls[network]
            * (best[task.key].score if one_kind else int(task.function.attrs["multiply_adds"]))
            for task in tasks
        }
        total = sum(costs.values()) or 1
        for key, cost in costs.items():
            weights[key] = max(weights[key], cost / total)
    rows = [TaskCoverage(kernel, weights[key], best.get(key)) for key, kernel in kernels.items()]
    return sorted(rows, key=lambda row: -row.weight)


def unfit(kernels: Mapping[str, KnownKernel], log: Log) -> list[tuple[Record, str]]:
    """List the records that no kernel can use, each with the reason."""
    found = []
    for record in (record for records in log.shortlists for record in records):
        kernel = kernels.get(record.key)
        if kernel is None:
            found.append((record, "no known network has this kernel"))
        elif apply_record(kernel.function, record) is None:
            found.append((record, "its schedule no longer fits the kernel"))
    return found
