"""How long a benchmark goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How long a measurement takes.

    Attributes
    ----------
    rounds, runs : int
        Rounds, and timed inferences of each subject in each.
    warm : int
        Inferences before those, not timed: the engine before left its own data in the caches.
    kernel_runs : int
        Inferences in each round of which each kernel is timed.
    pair_rounds : int
        Rounds of a network and its twin alone, which differ by less than a machine's phases do.
    seed : int
        Of the order.
    """

    rounds: int = 13
    runs: int = 4
    warm: int = 1
    kernel_runs: int = 2
    pair_rounds: int = 60
    seed: int = 0
