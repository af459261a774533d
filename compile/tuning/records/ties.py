"""What is chosen of estimates too close to tell apart.

Estimates within 5 % of each other say less of which schedule is faster than the exact count of
instructions does: on a machine that can be timed, choosing by the count loses less
(`compile/validate_score.py`, `chosen_regret_mean`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# Part of the best estimate by which ties are above it at most.
TIE = 0.05
# Counted where no device has measured.
_INSTRUCTIONS = "instructions"


def instructions_of(details: Mapping[str, float]) -> float:
    """Give the instructions among a score's details; infinite where it has none."""
    return details.get(_INSTRUCTIONS, math.inf)


def leanest(scores: Sequence[float], instructions: Sequence[float]) -> int:
    """Tell which to choose: of what ties with the best, the fewest instructions, then the best.

    Parameters
    ----------
    scores : sequence of float
        Lower is better.
    instructions : sequence of float
        Of each, infinite where unknown: where all are, the best is chosen.

    Returns
    -------
    int
        Its place.
    """
    most = min(scores) * (1 + TIE)
    ties = [place for place, score in enumerate(scores) if score <= most]
    return min(ties, key=lambda place: (instructions[place], scores[place]))
