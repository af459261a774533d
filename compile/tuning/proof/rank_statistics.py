"""How well an estimate ranks candidates whose true times are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shuffledeploy.compiler.tuning.records.ties import leanest

Values = NDArray[np.float64]
SUBSET, DRAWS = 40, 2000


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Statistics of an estimate over subsets of candidates drawn again and again.

    Attributes
    ----------
    spearman, kendall : float
        Rank correlations between estimate and time.
    top1_regret_mean, top3_regret_mean : float
        By how many percent the best of the one or three candidates with the least estimate is
        slower than the fastest of the subset, on average.
    """

    spearman: float
    kendall: float
    top1_regret_mean: float
    top3_regret_mean: float


def ranks(values: Values) -> Values:
    """Rank values from 0; equal ones share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse], np.float64)


def spearman(a: Values, b: Values) -> float:
    """Spearman's rank correlation."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def kendall(a: Values, b: Values) -> float:
    """Kendall's tau-b."""
    upper = np.triu_indices(len(a), 1)
    signs = [np.sign(values[:, None] - values[None, :])[upper] for values in (a, b)]
    untied = np.sqrt(float(np.prod([np.count_nonzero(sign) for sign in signs], dtype=np.float64)))
    return float((signs[0] * signs[1]).sum() / untied)


def regret(times: Values, estimates: Values, picks: int) -> float:
    """Percent by which the best of the first `picks` by estimate is slower than the fastest."""
    first = np.argsort(estimates, kind="stable")[:picks]
    return float(times[first].min() / times.min() - 1) * 100


def choice_regret(times: Values, estimates: Values, instructions: Values, seed: int) -> float:
    """Mean regret of what `leanest` chooses of one kernel's candidates.

    Over the same subsets that `rank_kernel` draws.
    """
    regrets = []
    for subset in _subsets(len(times), seed):
        place = leanest(list(estimates[subset]), list(instructions[subset]))
        regrets.append(float(times[subset][place] / times[subset].min() - 1) * 100)
    return float(np.mean(regrets))


def rank_kernel(times: Values, estimates: Values, seed: int) -> Ranking:
    """Compare the times of one kernel's candidates with their estimates.

    Correlations are of all candidates, regrets the mean over `DRAWS` subsets of `SUBSET` of them.
    """
    subsets = _subsets(len(times), seed)
    regrets = [
        float(np.mean([regret(times[s], estimates[s], picks) for s in subsets])) for picks in (1, 3)
    ]
    return Ranking(spearman(times, estimates), kendall(times, estimates), regrets[0], regrets[1])


def rank_pooled(times: Mapping[str, Values], estimates: Mapping[str, Values], seed: int) -> Ranking:
    """Compare the candidates of all kernels.

    Regrets are the mean over all kernels and subsets, every kernel counting alike. For the
    correlations, times and estimates of each kernel are divided by their medians there, so that
    ranking large kernels behind small ones earns nothing; then the correlation is that of all
    candidates of all kernels together.
    """
    by_kernel = [rank_kernel(times[name], estimates[name], seed) for name in times]
    together = [
        np.concatenate([values[name] / np.median(values[name]) for name in times])
        for values in (times, estimates)
    ]
    return Ranking(
        spearman(*together),
        kendall(*together),
        float(np.mean([ranking.top1_regret_mean for ranking in by_kernel])),
        float(np.mean([ranking.top3_regret_mean for ranking in by_kernel])),
    )


def _subsets(candidates: int, seed: int) -> Sequence[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    size = min(SUBSET, candidates)
    return [generator.choice(candidates, size, replace=False) for _ in range(DRAWS)]
