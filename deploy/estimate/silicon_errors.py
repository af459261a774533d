"""How far estimates are from times that were measured on silicon.

`silicon_errors.csv` keeps what `compile/validate_silicon.py --keep` found with this estimator: from
there estimates on a board get their error.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shuffledeploy.compiler.tuning.proof.rank_statistics import spearman
from shuffledeploy.deploy.estimate.cycles import ESTIMATOR_VERSION
from shuffledeploy.model.command_output import replaced

LEAST_NETWORKS = 2
_TABLE = Path(__file__).with_suffix(".csv")
_FIGURES = ("ratio_mean", "median_error", "largest_error", "spread", "rank_correlation")


@dataclass(frozen=True)
class SiliconErrors:
    """Statistics of estimate over measured time, over the networks of one board.

    Attributes
    ----------
    networks : int
        How many.
    ratio_mean : float
        Geometric mean of the ratios: 1 where the estimate is right on the whole.
    median_error, largest_error : float
        Of the ratios' distances from 1.
    spread : float
        Geometric standard deviation of the ratios, 1 where all are alike: what is left when the
        board's clock is off by a factor.
    rank_correlation : float
        Spearman's, of estimates and times.
    """

    networks: int
    ratio_mean: float
    median_error: float
    largest_error: float
    spread: float
    rank_correlation: float


@dataclass(frozen=True)
class KnownErrors:
    """What is known of a board's estimates.

    Attributes
    ----------
    errors : SiliconErrors
        Of the last run of `compile/validate_silicon.py`.
    blind : bool
        Whether nobody looked at that board's times while the estimate was made.
    """

    errors: SiliconErrors
    blind: bool

    def to_json(self) -> dict[str, Any]:
        """Give all figures for a JSON file."""
        return {**dataclasses.asdict(self.errors), "blind": self.blind}

    @property
    def verdict(self) -> str:
        """Say it in a line."""
        found = self.errors
        seen = "a blind test" if self.blind else "constants were chosen on boards of its kind"
        return (
            f"{found.networks} networks of ncnn were estimated within {found.median_error:.0%}"
            f" (median) and {found.largest_error:.0%} (largest error) of times published for this"
            f" board; {seen}"
        )


def known_errors(board: str, table: Path = _TABLE) -> KnownErrors | None:
    """Return how far estimates on a board were from published times; None where nobody knows."""
    return _read(table).get(board)


def keep_errors(found: Mapping[str, KnownErrors], table: Path = _TABLE) -> None:
    """Write boards' errors where `known_errors` finds them; others of this estimator stay."""
    together = {**_read(table), **found}
    with replaced(table) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("board", "networks", *_FIGURES, "blind", "estimator"))
        for board, known in together.items():
            figures = (f"{getattr(known.errors, name):.4f}" for name in _FIGURES)
            blind = "yes" if known.blind else "no"
            rows.writerow((board, known.errors.networks, *figures, blind, ESTIMATOR_VERSION))


def _read(table: Path) -> dict[str, KnownErrors]:
    """Read the rows that this estimator made."""
    if not table.exists():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["estimator"]) == ESTIMATOR_VERSION]
    return {row["board"]: _known(row) for row in rows}


def _known(row: dict[str, str]) -> KnownErrors:
    figures = {name: float(row[name]) for name in _FIGURES}
    return KnownErrors(SiliconErrors(int(row["networks"]), **figures), row["blind"] == "yes")


def silicon_errors(estimated: Sequence[float], measured: Sequence[float]) -> SiliconErrors | None:
    """Compare estimated with measured milliseconds; None for fewer than two networks."""
    if len(estimated) < LEAST_NETWORKS:
        return None
    ours, theirs = np.asarray(estimated, np.float64), np.asarray(measured, np.float64)
    logarithms = np.log(ours / theirs)
    errors = np.abs(ours / theirs - 1)
    return SiliconErrors(
        len(ours), float(np.exp(logarithms.mean())), float(np.median(errors)),
        float(errors.max()), float(np.exp(logarithms.std(ddof=1))), spearman(ours, theirs),
    )  # fmt: skip
