"""Records of related targets: what a target with none of its own is compiled with.

Cores of one architecture with the same vectors share the code of their unscheduled kernels, so a
record of one fits the other. A schedule that was found for a sibling is a better start than a
form's default numbers; the target's own records always go first. Scores are not carried over:
they were another core's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shuffledeploy.compiler.targets import CompileTarget, places_apart
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.record_log import FILE_NAME, log_path, read_log
from shuffledeploy.model.folders import COMMITTED_RECORDS, records_folder


def usable_records(
    log_folder: Path, target: CompileTarget, wanted: Iterable[str] | None = None
) -> dict[str, Record]:
    """Give each kernel's key its best record: of the target, else of the nearest related one.

    Parameters
    ----------
    log_folder : Path
        Where records are kept, a folder a target.
    target : CompileTarget
        What is compiled for.
    wanted : iterable of str, optional
        Keys of the kernels that there are: other targets' logs are read only for what is missing.

    Raises
    ------
    UsageError
        If a log cannot be read.
    """
    found = own_records(log_folder, target)
    missing = None if wanted is None else set(wanted)
    for folder in _folders(log_folder):
        for name in related_targets(folder, target):
            if missing is not None and missing <= found.keys():
                return found
            for key, record in read_log(log_path(folder, name)).preferred.items():
                found.setdefault(key, record.borrowed_from(name))
    return found


def own_records(log_folder: Path, target: CompileTarget) -> dict[str, Record]:
    """Give each kernel's key its best record of the target itself.

    Of several threads those that won in a network of as many go first.
    """
    found: dict[str, Record] = {}
    for threads in dict.fromkeys((target.threads, 1)):
        for folder in _folders(log_folder):
            log = read_log(log_path(folder, target.name, threads))
            for key, record in log.preferred.items():
                found.setdefault(key, record)
    return found


def _folders(log_folder: Path) -> list[Path]:
    """List where records are looked for: an installed copy brings some along, used after others."""
    if log_folder == records_folder() != COMMITTED_RECORDS:
        return [log_folder, COMMITTED_RECORDS]
    return [log_folder]


def related_targets(log_folder: Path, target: CompileTarget) -> list[str]:
    """List the targets with records that fit another, the nearest first."""
    names = sorted(path.parent.name for path in log_folder.glob(f"*/{FILE_NAME}"))
    distances = {name: places_apart(name, target) for name in names if name != target.name}
    return sorted(
        (name for name, distance in distances.items() if distance is not None),
        key=lambda name: (distances[name], name),
    )
