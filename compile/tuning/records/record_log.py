"""Tuning records: what was tried for a kernel, what it scored, and who says so.

One folder a target, ``tuning_logs/<target>/records.jsonl``, a JSON object a line::

    {"kernel": "conv1x1_g3_60x240_14x14", "key": "9f0c...", "score": 1234.0, "unit": "instructions",
     "source": "counted: ...", "tvm": "0.27.0.post1", "date": "2026-11-22", "trials": 64,
     "trace": [...]}

``key`` is the hash of the kernel's unscheduled code, so that a record fits whatever network has the
same kernel. ``trace`` is MetaSchedule's, in its own JSON. ``details`` may follow: figures that were
found on the way to the score. Scores of different sources are never compared.

Of each kernel and source the best few records are kept: the shortlist, to be measured when a device
appears. Until then, among estimates too close to tell apart the fewest instructions decide.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from shuffledeploy.compiler.tuning.records.log_files import (
    append_text,
    locked,
    read_text,
    replace_text,
)
from shuffledeploy.compiler.tuning.records.record import Record, read_record
from shuffledeploy.compiler.tuning.records.ties import instructions_of, leanest
from shuffledeploy.model.errors import UsageError

FILE_NAME = "records.jsonl"
SHORTLIST = 5


@dataclasses.dataclass(frozen=True)
class Log:
    """What was read from a log.

    Attributes
    ----------
    shortlists : tuple of tuple of Record
        The best few of each kernel from each source of scores, the best first.
    rejected : tuple of str
        One sentence for each line that was not used.
    """

    shortlists: tuple[tuple[Record, ...], ...]
    rejected: tuple[str, ...] = ()

    @property
    def records(self) -> tuple[Record, ...]:
        """The best of each kernel from each source of scores."""
        return tuple(shortlist[0] for shortlist in self.shortlists)

    @property
    def best(self) -> dict[str, Record]:
        """The best record of each key: one measured, else one estimated, else one counted.

        Scores of different sources are not compared: among those of one kind the latest counts.
        """
        return {records[0].key: records[0] for records in self._by_trust()}

    @property
    def preferred(self) -> dict[str, Record]:
        """The record to compile each key with: as :attr:`best`, but for ties of estimates."""
        return {records[0].key: preferred(records) for records in self._by_trust()}

    @property
    def shortlist(self) -> dict[str, tuple[Record, ...]]:
        """The best few of the source that :attr:`best` takes, for each key."""
        return {records[0].key: records for records in self._by_trust()}

    def _by_trust(self) -> list[tuple[Record, ...]]:
        return sorted(self.shortlists, key=lambda records: (records[0].trust, records[0].date))


def log_path(folder: Path, target: str, threads: int = 1) -> Path:
    """Where the records of a target are kept, found in networks of so many threads."""
    return folder / target / (FILE_NAME if threads == 1 else f"records-{threads}-threads.jsonl")


def read_log(path: Path, source: str | None = None) -> Log:
    """Read a log, skipping what is damaged or foreign.

    Parameters
    ----------
    path : Path
        The log; one that does not exist is empty.
    source : str, optional
        Keep only scores of this source.

    Raises
    ------
    UsageError
        If the file cannot be read at all.
    """
    try:
        state = path.stat()
        # A run asks several times; what has grown or was replaced is read again.
        return _read_log(path, source, (state.st_ino, state.st_size, state.st_mtime_ns))
    except FileNotFoundError:
        return Log(())
    except OSError as error:
        raise UsageError(f"cannot read the tuning log {path}: {error.strerror}") from error


@functools.lru_cache(maxsize=16)
def _read_log(path: Path, source: str | None, _state: tuple[int, ...]) -> Log:
    lines = read_text(path).splitlines()
    kept: dict[tuple[str, str], dict[str, Record]] = {}
    rejected: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = read_record(line)
        except ValueError as error:
            rejected.append(f"{path}:{number}: {error}")
            continue
        if source is not None and record.source != source:
            continue
        schedules = kept.setdefault((record.key, record.source), {})
        known = schedules.get(schedule := json.dumps(record.trace))
        if known is None or record.score <= known.score:
            schedules[schedule] = record
    # Of equal scores the one of more trials counts, and of equal trials the later line.
    ranked = [
        sorted(reversed(s.values()), key=lambda record: (record.score, -record.trials))
        for s in kept.values()
    ]
    return Log(tuple(best_few(records, SHORTLIST) for records in ranked), tuple(rejected))


def best_few(ranked: Sequence[Record], most: int) -> tuple[Record, ...]:
    """Cut a shortlist, the best first; the :func:`preferred` one stays, or takes the last place."""
    few = list(ranked[:most])
    if (choice := preferred(ranked)) not in few:
        few[-1] = choice
    return tuple(few)


def preferred(shortlist: Sequence[Record]) -> Record:
    """Give the record of a shortlist to compile with."""
    counts = [instructions_of(record.details) for record in shortlist]
    return shortlist[leanest([record.score for record in shortlist], counts)]


def append(path: Path, records: Iterable[Record]) -> None:
    """Add records to a log and have them on the disk before returning.

    Raises
    ------
    UsageError
        If the log cannot be written.
    """
    append_text(path, "".join(record.line() + "\n" for record in records))


def rewrite(path: Path, records: Sequence[Record]) -> None:
    """Replace a log by these records, sorted by kernel; the old one stays whole until then.

    Raises
    ------
    UsageError
        If the log cannot be written.
    """
    with locked(path):
        replace_text(path, sorted_lines(records))


def log_text(shortlists: Iterable[Sequence[Record]]) -> str:
    """Write shortlists as a log, by kernel; the best last, as it is when a tuner appends it."""
    return sorted_lines(record for records in shortlists for record in reversed(records))


def sorted_lines(records: Iterable[Record]) -> str:
    """Write records as a log, by kernel."""
    in_order = sorted(records, key=lambda record: (record.kernel, record.key))
    return "".join(record.line() + "\n" for record in in_order)


def compact(path: Path) -> None:
    """Keep the best few of each kernel and source; a log with damaged lines is left as it is."""
    if not path.exists():
        return
    with locked(path):
        log = read_log(path)
        if log.shortlists and not log.rejected:
            replace_text(path, log_text(log.shortlists))


def replace_scores(path: Path, records: Sequence[Record]) -> None:
    """Let records take the place of all that their sources said of their kernels, then compact.

    Scores that were found at different times would else be compared, and the luckiest one kept. A
    log with damaged lines is left as it is.
    """
    said = {(record.key, record.source) for record in records}
    _replace(path, records, lambda old: (old.key, old.source) in said)


def replace_kind(path: Path, keys: Iterable[str], records: Sequence[Record], unit: str) -> None:
    """Let records take the place of all that a log says of some keys in one unit, then compact.

    A log with damaged lines is left as it is.
    """
    gone = set(keys)
    _replace(path, records, lambda old: old.key in gone and old.unit == unit)


def _replace(path: Path, records: Sequence[Record], goes: Callable[[Record], bool]) -> None:
    """Let records take the place of the shortlists whose records go, then compact."""
    with locked(path):
        log = read_log(path)
        if log.rejected or not log.shortlists:
            return
        kept = [few for few in log.shortlists if not goes(few[0])]
        replace_text(path, sorted_lines([*(r for few in kept for r in reversed(few)), *records]))
    compact(path)
