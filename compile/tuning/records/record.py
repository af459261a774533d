"""One tuning record: its fields, its line in a log, and what it takes to be read from one."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Mapping
from typing import Any

from shuffledeploy.compiler import TVM_VERSION
from shuffledeploy.compiler.tuning.records.plain_traces import require_plain
from shuffledeploy.compiler.tuning.score import LARGEST_SCORE, MEASURED_UNIT

ESTIMATED_UNIT = "estimated cycles"
# Which of two records of one kernel is used: the unit that stands later here.
_TRUST = (ESTIMATED_UNIT, MEASURED_UNIT)
_TEXTS = ("kernel", "key", "unit", "source", "tvm", "date")
# The longest text of a committed record has 107 characters, its longest line 3295.
LONGEST_TEXT, LONGEST_LINE, MOST_TRIALS = 300, 100_000, 10**9
_BORROWED = "borrowed from "


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
    details: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def line(self) -> str:
        """Return the record as its line in a log."""
        fields = dataclasses.asdict(self)
        if not self.details:
            del fields["details"]
        return json.dumps(fields, separators=(",", ":"))

    def borrowed_from(self, target: str) -> Record:
        """Copy it for use on another target than that whose score it is."""
        return dataclasses.replace(self, source=f"{_BORROWED}{target}: {self.source}")

    @property
    def lender(self) -> str:
        """The target whose score it is, where it is used for another; else empty."""
        borrowed = self.source.removeprefix(_BORROWED)
        return borrowed.partition(":")[0] if borrowed != self.source else ""

    @property
    def trust(self) -> int:
        """How far its kind of score is to be trusted: measured, then estimated, then counted."""
        return _TRUST.index(self.unit) if self.unit in _TRUST else -1


def read_record(line: str) -> Record:
    """Read a record from its line in a log.

    Raises
    ------
    ValueError
        Says what is wrong with it.
    """
    if len(line) > LONGEST_LINE:
        raise ValueError(f"a line of more than {LONGEST_LINE:,} characters")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON (a line cut short?)") from None
    names = {field.name for field in dataclasses.fields(Record)}
    if not isinstance(fields, dict) or {*fields, "details"} != names:
        raise ValueError("not a tuning record (fields are missing or unknown)")
    number, trials = fields["score"], fields["trials"]
    if (
        not all(_is_plain_text(fields[name]) for name in _TEXTS)
        or not isinstance(fields["trace"], list)
        or not _figures(fields.get("details", {}))
        or type(trials) is not int
        or not 0 <= trials <= MOST_TRIALS
    ):
        raise ValueError("not a tuning record (a field is of another type)")
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not 0 < number < LARGEST_SCORE
    ):
        raise ValueError("not a tuning record (its score is not a positive number)")
    if fields["tvm"] != TVM_VERSION:
        raise ValueError(f"written with TVM {fields['tvm']}, this is {TVM_VERSION}")
    if not _is_date(fields["date"]):
        raise ValueError("not a tuning record (its date is none)")
    require_plain(fields["trace"])
    return Record(**fields)


def _is_plain_text(value: object) -> bool:
    """Whether it is a text of a line, without what steers a terminal."""
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _figures(details: object) -> bool:
    """Whether details can be figures by their names."""
    return isinstance(details, dict) and all(
        _is_plain_text(name) and type(figure) in (int, float) and math.isfinite(figure)
        for name, figure in details.items()
    )
