"""Which schedules of a search are kept: those that win where the network calls them.

::

    kernels whose schedule changed          timed again alone, in turns: a lucky moment is forgotten
    three libraries of the network:         timed in turns, whole and call by call
      before, default numbers, found
    one more, of the best of each part      timed whole beside them, in turns
    the log                                 keeps what the fastest of the four is made of

A schedule that wins alone may lose in its network, where other layers leave the caches otherwise
and strips call a kernel on a few rows. A part is what cannot be told apart there: the kernels of
one call, and all calls of one kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from shuffledeploy.compiler.bundle.folder import seeded_inputs
from shuffledeploy.compiler.lowered_network import Lowered
from shuffledeploy.compiler.tuning.network_libraries import NetworkLibraries, Records
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.record_log import log_path, read_log, replace_kind
from shuffledeploy.compiler.tuning.records.recorded_schedules import recorded_schedule
from shuffledeploy.compiler.tuning.records.related_records import usable_records
from shuffledeploy.compiler.tuning.request import Request
from shuffledeploy.compiler.tuning.run_search import measure_shortlist, timed_schedules
from shuffledeploy.compiler.tuning.score import MEASURED_UNIT, Devices
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.compiler.tuning.search.tasks import Task, default_schedule
from shuffledeploy.model.command_output import counted
from shuffledeploy.model.progress import saying_what_is_left
from shuffledeploy.model.scratch import scratch_folder

BEFORE, DEFAULT, FOUND, BEST = "before", "default numbers", "found", "the best of each part"


@dataclasses.dataclass(frozen=True)
class KeptSchedules:
    """What a search brought to the whole network. The kind of these figures is: measured.

    Attributes
    ----------
    kept : str
        Which of the libraries was fastest: `BEFORE`, `DEFAULT`, `FOUND` or `BEST`.
    nanoseconds : dict
        Of one inference of each library, in turns.
    returned : tuple of str
        Kernels of which the search's schedule was not kept.
    """

    kept: str
    nanoseconds: Mapping[str, float]
    returned: tuple[str, ...]

    def over_kept(self, name: str) -> float:
        """Tell how many times the time of what is kept another library takes."""
        return self.nanoseconds[name] / self.nanoseconds[self.kept]

    def sentence(self) -> str:
        """Say in words what came out."""
        before, default = self.over_kept(BEFORE), self.over_kept(DEFAULT)
        said = (
            f"the whole network in turns (measured): {before:.3f} times as fast as before,"
            f" {default:.3f} times as with default numbers"
        )
        if not self.returned:
            return f"{said}; all that was found is kept"
        kernels = counted(len(self.returned), "kernel")
        return f"{said}; what was found for {kernels} does not win there and is not kept"

    def to_json(self) -> dict[str, Any]:
        """Return the fields documented in the README."""
        return {
            "kept": self.kept,
            "nanoseconds": dict(self.nanoseconds),
            "before_over_kept": self.over_kept(BEFORE),
            "default_over_kept": self.over_kept(DEFAULT),
            "returned": list(self.returned),
        }


def keep_what_wins(
    request: Request,
    lowered: Lowered,
    tasks: Sequence[Task],
    before: Records,
    devices: Devices,
    device: str,
    *,
    console: Console,
    say: Callable[[str], None],
) -> KeptSchedules | None:
    """Time what a search found in the whole network, and forget in the log what does not win.

    Parameters
    ----------
    request : Request
        What was asked for.
    lowered : Lowered
        The network.
    tasks : sequence of Task
        Its kernels that can be tuned.
    before : mapping
        The records that the network was compiled with before the search.
    devices, device : Devices, str
        What times it, and where.
    console, say : Console, Callable
        Where to say what is being done.

    Returns
    -------
    KeptSchedules or None
        ``None`` where a search changed nothing, or the device cannot time a network call by call.
    """
    target = request.target
    log = log_path(request.log_folder, target.name, target.threads)
    if not devices.times_calls(device):
        return None
    if not request.measure_shortlist:
        found = _found(request, tasks)
        changed = [t for t in tasks if _trace(before.get(t.key)) != _trace(found.get(t.key))]
        if not changed:
            return None
        say(f"timing the best of {len(changed)} kernels again, in turns")
        measure_shortlist(request, changed, devices, device, log, console)
    found = _found(request, tasks)
    variants: dict[str, Records] = {BEFORE: before, DEFAULT: {}, FOUND: found}
    inputs, tell = seeded_inputs(lowered.program.inputs, 0), saying_what_is_left(say, "round")
    with scratch_folder("whole-network-") as folder:
        built = NetworkLibraries(lowered, target, folder)
        for name, records in variants.items():
            say(f"building the whole network: {name}")
            built.build(name, records)
        say("timing the whole network call by call, in turns")
        times = devices.time_calls(built.paths, inputs, device, target.threads, tell)
        best = built.best_of_parts(times, BEFORE)
        variants[BEST] = {
            key: record
            for key, name in best.items()
            if (record := variants[name].get(key)) is not None
        }
        say(f"building the whole network: {BEST}")
        built.build(BEST, variants[BEST])
        say("timing the whole network beside that, in turns")
        times = devices.time_calls(built.paths, inputs, device, target.threads, tell)
        whole = built.whole(times)
        kept = min(whole, key=lambda name: (whole[name], name != BEFORE))
        differ = built.differing(FOUND, kept)
    lost = [task for task in tasks if task.key in differ]
    _forget(lost, variants[kept], request, devices, device, log)
    return KeptSchedules(kept, whole, tuple(task.name for task in lost))


def _found(request: Request, tasks: Sequence[Task]) -> dict[str, Record]:
    return usable_records(request.log_folder, request.target, [task.key for task in tasks])


def _trace(record: Record | None) -> Any:
    return None if record is None else record.trace


def _forget(
    lost: Sequence[Task], kept: Records, request: Request, devices: Devices, device: str, log: Path
) -> None:
    """Have the log say of some kernels what was kept, and nothing else that was measured."""
    if not lost:
        return
    target, core = request.target, request.target.core
    known = read_log(log).records
    schedules = []
    for task in lost:
        record = kept.get(task.key)
        schedule = record and recorded_schedule(task.function, record)
        trials = max((r.trials for r in known if r.key == task.key), default=1)
        schedules.append((task, schedule or default_schedule(task.function, core), trials))
    with devices.score(target, device, "latency") as score, Workers() as workers:
        timed = timed_schedules(schedules, score, target, workers)
    records = [record for record in timed if isinstance(record, Record)]
    replace_kind(log, [task.key for task in lost], records, MEASURED_UNIT)
