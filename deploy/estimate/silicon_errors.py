"""How far estimates are from times that were measured on silicon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shuffledeploy.compiler.tuning.proof.rank_statistics import spearman

LEAST_NETWORKS = 2


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
