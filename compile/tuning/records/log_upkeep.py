"""Looking after a log: lines taken out, two logs into one. Needs no network and no TVM."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shuffledeploy.compiler.tuning.records.log_files import locked, replace_text
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.record_log import FILE_NAME, best_few, log_text, read_log
from shuffledeploy.model.errors import UsageError


def prune(path: Path, drop: Iterable[Record], most: int) -> int:
    """Take records out of a log, and lines that could not be read; return how many are left.

    Parameters
    ----------
    path : Path
        The log.
    drop : iterable of Record
        What to take out.
    most : int
        Longest shortlist to keep.
    """
    gone = {record.line() for record in drop}
    with locked(path):
        log = read_log(path)
        left = [[r for r in records if r.line() not in gone] for records in log.shortlists]
        kept = [best_few(records, most) for records in left if records]
        replace_text(path, log_text(kept))
    return sum(map(len, kept))


def find_log(place: Path) -> Path:
    """Find the log in a target's folder; a file is taken as it is.

    Raises
    ------
    UsageError
        If there is none.
    """
    path = place / FILE_NAME if place.is_dir() else place
    if not path.is_file():
        raise UsageError(f"there is no tuning log at {path}")
    return path


def merge(into: Path, other: Path) -> int:
    """Add another log's records to a log, keeping the best few; return how many there are then.

    Raises
    ------
    UsageError
        If they are of other targets or have scores of other sources, or a line is damaged.
    """
    if into.resolve().parent.name != other.resolve().parent.name:
        raise UsageError(
            f"{into} and {other} are logs of other targets ({into.resolve().parent.name},"
            f" {other.resolve().parent.name}): their records do not mix"
        )
    with locked(into):
        logs = [read_log(into), read_log(other)]
        for sentence in (*logs[0].rejected, *logs[1].rejected):
            raise UsageError(f"{sentence}; `prune` takes such lines out")
        sources = [{record.source for record in log.records} for log in logs]
        if sources[0] and sources[1] and sources[0] != sources[1]:
            odd = "; ".join(sorted(sources[0] ^ sources[1]))
            raise UsageError(f"scores of different sources do not mix: only one has {odd}")
        # Line by line, as a tuner would have written them: reading keeps the best few.
        replace_text(into, log_text([*logs[1].shortlists, *logs[0].shortlists]))
        merged = read_log(into).shortlists
        replace_text(into, log_text(merged))
    return sum(map(len, merged))
