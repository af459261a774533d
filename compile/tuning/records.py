"""Tuning records: what was tried for a kernel, what it scored, and who says so.

One folder a target, ``tuning_logs/<target>/records.jsonl``, a JSON object a line::

    {"kernel": "conv1x1_g3_60x240_14x14", "key": "9f0c...", "score": 1234.0, "unit": "instructions",
     "source": "counted: ...", "tvm": "0.27.0.post1", "date": "2026-11-22", "trials": 64,
     "trace": [...]}

``key`` is the hash of the kernel's unscheduled code, so that a record fits whatever network has the
same kernel. ``trace`` is MetaSchedule's, in its own JSON. Scores of different sources are never
compared.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace

from compile import TVM_VERSION
from model.errors import UsageError

FILE_NAME = "records.jsonl"
KEY_LENGTH = 20
MEASURED_UNIT = "ns"


@dataclasses.dataclass(frozen=True)
class Record:
    """The score of one schedule of one kernel on one target."""

    kernel: str
    key: str
    score: float
    unit: str
    source: str
    tvm: str
    date: str
    trials: int
    trace: Any

    def line(self) -> str:
        """Return the record as its line in a log."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))


@dataclasses.dataclass(frozen=True)
class Log:
    """What was read from a log.

    Attributes
    ----------
    records : tuple of Record
        The best of each kernel from each source of scores.
    rejected : tuple of str
        One sentence for each line that was not used.
    """

    records: tuple[Record, ...]
    rejected: tuple[str, ...] = ()

    @property
    def best(self) -> dict[str, Record]:
        """The record to use for each key: one measured on a device before one counted.

        Scores of different sources are not compared: among measured ones the latest counts.
        """
        chosen: dict[str, Record] = {}
        for record in sorted(self.records, key=lambda r: (r.unit == MEASURED_UNIT, r.date)):
            chosen[record.key] = record
        return chosen


def kernel_key(function: tirx.PrimFunc) -> str:
    """Hash of a kernel's unscheduled code; the same for the same code under another name."""
    plain = function.without_attr("global_symbol") if _named(function) else function
    return hashlib.sha256(plain.script().encode()).hexdigest()[:KEY_LENGTH]


def _named(function: tirx.PrimFunc) -> bool:
    return bool(function.attrs) and "global_symbol" in function.attrs


def log_path(folder: Path, target: str) -> Path:
    """Where the records of a target are kept."""
    return folder / target / FILE_NAME


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
    if not path.exists():
        return Log(())
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UsageError(f"cannot read the tuning log {path}: {error.strerror}") from error
    best: dict[tuple[str, str], Record] = {}
    rejected: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _parse(line)
        except ValueError as error:
            rejected.append(f"{path}:{number}: {error}")
            continue
        if source is not None and record.source != source:
            continue
        known = best.get((record.key, record.source))
        # Of equal scores the later line counts: it knows of more trials.
        if known is None or record.score <= known.score:
            best[record.key, record.source] = record
    return Log(tuple(best.values()), tuple(rejected))


def _parse(line: str) -> Record:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON (a line cut short?)") from None
    names = {field.name for field in dataclasses.fields(Record)}
    if not isinstance(fields, dict) or set(fields) != names:
        raise ValueError("not a tuning record (fields are missing or unknown)")
    texts = ("kernel", "key", "unit", "source", "tvm", "date")
    number, trials = fields["score"], fields["trials"]
    if (
        not all(isinstance(fields[name], str) for name in texts)
        or not isinstance(fields["trace"], list)
        or type(trials) is not int
        or trials < 0
    ):
        raise ValueError("not a tuning record (a field is of another type)")
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1e18:
        raise ValueError("not a tuning record (its score is not a positive number)")
    if fields["tvm"] != TVM_VERSION:
        raise ValueError(f"written with TVM {fields['tvm']}, this is {TVM_VERSION}")
    return Record(**fields)


def append(path: Path, records: Iterable[Record]) -> None:
    """Add records to a log and have them on the disk before returning.

    Raises
    ------
    UsageError
        If the log cannot be written.
    """
    text = "".join(record.line() + "\n" for record in records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as stream:
            # A run that was cut off may have left half a line: do not write on behind it.
            stream.seek(-min(1, stream.tell()), os.SEEK_END)
            half = stream.read(1) not in (b"", b"\n")
            stream.write(("\n" * half + text).encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise UsageError(f"cannot write the tuning log {path}: {error.strerror}") from error


def rewrite(path: Path, records: Sequence[Record]) -> None:
    """Replace a log by these records, sorted by kernel; the old one stays whole until then."""
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    append(beside, sorted(records, key=lambda record: (record.kernel, record.key)))
    beside.replace(path)


def compact(path: Path) -> None:
    """Keep the best record of each kernel and source; a log with damaged lines is left as it is."""
    log = read_log(path)
    if log.records and not log.rejected:
        rewrite(path, log.records)


def make_record(
    kernel: str, key: str, schedule: Schedule, score: float, unit: str, source: str, trials: int
) -> Record:
    """Write down what was tried, today."""
    trace = schedule.trace.simplified(remove_postproc=True).as_json()
    plain = json.loads(json.dumps(trace, default=_plain))
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return Record(kernel, key, score, unit, source, TVM_VERSION, today, trials, plain)


def _plain(value: Any) -> Any:
    """TVM's containers and numbers as JSON has them."""
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "value"):
        return value.value
    if hasattr(value, "items"):
        return {str(k): v for k, v in value.items()}
    return list(value)


def apply_record(function: tirx.PrimFunc, record: Record) -> tirx.PrimFunc | None:
    """Schedule a kernel as a record says; ``None`` where the record does not fit it."""
    schedule = Schedule(tvm.IRModule({"main": function}))
    try:
        Trace.apply_json_to_schedule(record.trace, schedule)
        return schedule.mod["main"]
    except Exception:
        # A trace comes from a file: whatever it makes TVM throw, the answer is that it does not
        # fit.
        return None
