"""Statistics of samples taken in rounds, and whether the machine was too noisy to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

#: Fewer samples than these give no figure worth the name.
LEAST_SAMPLES = 50

#: Beyond these the machine was too noisy: the spread of the multiply-add loop, which touches no
#: memory and so should not vary; the change of an engine's median between the halves of the
#: rounds; the time that the hypervisor gave to others.
SPREAD_BOUND, HALVES_BOUND, STOLEN_BOUND = 0.10, 0.05, 0.02

#: Samples of one engine, a list for each round.
Rounds = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Summary:
    """Latency of one subject; the kind of these figures is: measured."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    samples: int


@dataclass(frozen=True)
class Noise:
    """What is known of how steady the machine was.

    Attributes
    ----------
    loop_spread : float or None
        (p90 - p10) / median of the multiply-add loop's rate over the rounds.
    halves : float
        Largest change of an engine's median from the first half of the rounds to the second.
    halves_of : str
        That engine's subject.
    stolen : float or None
        Share of the time that the hypervisor kept the core from this machine.
    reasons : tuple of str
        Which of them are beyond bounds; empty: the figures can be told apart.
    """

    loop_spread: float | None
    halves: float
    halves_of: str
    stolen: float | None
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the fields, and the verdict."""
        return {**asdict(self), "reasons": list(self.reasons), "noisy": bool(self.reasons)}


def summarise(rounds: Rounds) -> Summary:
    """Sum up a subject's samples, in seconds."""
    samples = [sample for turn in rounds for sample in turn]
    low, median, high = np.percentile(samples, [10, 50, 90]) * 1e3
    return Summary(float(median), float(low), float(high), len(samples))


def ratio_by_rounds(first: Rounds, second: Rounds) -> float:
    """Give the median over the rounds of the ratio of the round's medians.

    What slows the machine for longer than a round hits both and drops out; a ratio of the medians
    of all would keep it.
    """
    ratios = [
        float(np.median(one) / np.median(other)) for one, other in zip(first, second, strict=True)
    ]
    return float(np.median(ratios))


def change_between_halves(rounds: Rounds) -> float:
    """Give how far the median of the second half of the rounds lies from that of the first."""
    middle = len(rounds) // 2
    if middle == 0:
        return 0.0
    first = np.median([sample for turn in rounds[:middle] for sample in turn])
    second = np.median([sample for turn in rounds[middle:] for sample in turn])
    return float(abs(second - first) / min(first, second))


def judge_noise(
    samples: Mapping[str, Rounds], loop_rates: Sequence[float], stolen: float | None
) -> Noise:
    """Tell whether the machine was steady enough.

    Parameters
    ----------
    samples : dict
        Of each subject, by its name for people.
    loop_rates : sequence of float
        Multiply-adds a second of the loop, one for each round.
    stolen : float or None
        See :class:`Noise`.
    """
    changes = {name: change_between_halves(rounds) for name, rounds in samples.items()}
    worst = max(changes, key=lambda name: changes[name], default="")
    spread = None
    if len(loop_rates) >= 2:
        low, median, high = np.percentile(loop_rates, [10, 50, 90])
        spread = float((high - low) / median)
    reasons = []
    if spread is not None and spread > SPREAD_BOUND:
        reasons.append(f"the multiply-add loop varied by {spread:.0%} (bound {SPREAD_BOUND:.0%})")
    if changes and changes[worst] > HALVES_BOUND:
        reasons.append(
            f"{worst} changed by {changes[worst]:.0%} between the halves of the rounds"
            f" (bound {HALVES_BOUND:.0%})"
        )
    if stolen is not None and stolen > STOLEN_BOUND:
        reasons.append(
            f"the hypervisor took {stolen:.0%} of the core's time (bound {STOLEN_BOUND:.0%})"
        )
    return Noise(spread, changes.get(worst, 0.0), worst, stolen, tuple(reasons))
