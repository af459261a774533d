"""Times that were published of ARM boards: ncnn's own benchmark table, one thread.

Source of every row of `published_times.csv`: github.com/Tencent/ncnn, `benchmark/README.md` at
commit a4d2ea1d of 2026-07-22. `source_line` is the line there; `date` and `commit` are those with
which the row came into that file.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).with_name("published_times.csv")


@dataclass(frozen=True)
class PublishedTime:
    """One network's time on one board. The kind of this figure is: measured, by others.

    Attributes
    ----------
    board : str
        A name of `deploy.estimate.boards.BOARDS`.
    network : str
        As ncnn calls it.
    least_ms : float
        The least of several runs, milliseconds.
    date, commit : str
        Of the change that brought the row, as ``2023-06-15``.
    source_line : int
        Where it stands.
    left_out : str
        Why no estimate is held against it; empty where one is.
    """

    board: str
    network: str
    least_ms: float
    date: str
    commit: str
    source_line: int
    left_out: str


def published_times() -> tuple[PublishedTime, ...]:
    """Return all rows, board by board."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(
            PublishedTime(
                row["board"], row["network"], float(row["least_ms"]), row["date"], row["commit"],
                int(row["source_line"]), row["left_out"],
            )
            for row in csv.DictReader(file)
        )  # fmt: skip
