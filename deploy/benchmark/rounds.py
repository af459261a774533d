"""The rounds: every engine runs a few inferences in each, in an order that changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shuffledeploy.deploy.benchmark.benchmark_plan import Subject
from shuffledeploy.deploy.benchmark.settings import Settings
from shuffledeploy.deploy.benchmark.worker_process import Asked
from shuffledeploy.model.errors import Failure

Pair = tuple[Subject, Subject]


@dataclass
class Samples:
    """What the rounds brought.

    Attributes
    ----------
    seconds : dict
        Of each subject, a list for each round.
    ceilings : list of dict
        Of each round; see :mod:`deploy.benchmark.roofline_engine`.
    kernels : dict
        By network: ``calls`` and ``whole`` of all runs, in nanoseconds.
    pairs : dict
        Of each pair, the seconds of both, a list for each round.
    lost : dict
        Subjects that failed on the way, and why.
    """

    seconds: dict[Subject, list[list[float]]] = field(default_factory=dict)
    ceilings: list[dict[str, Any]] = field(default_factory=list)
    kernels: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    pairs: dict[Pair, tuple[list[list[float]], list[list[float]]]] = field(default_factory=dict)
    lost: dict[Subject, str] = field(default_factory=dict)


def measure(
    subjects: Mapping[Subject, Asked],
    kernels: Mapping[str, Asked],
    ceilings: Asked | None,
    settings: Settings,
    tell: Callable[[float], None] = lambda _: None,
    pairs: Sequence[Pair] = (),
) -> Samples:
    """Run the rounds; one worker at a time works.

    Parameters
    ----------
    subjects : dict
        Workers that are loaded and were found to answer rightly.
    kernels : dict
        Workers that time kernels, by network.
    ceilings : Asked or None
        The worker that measures the core's ceilings.
    settings : Settings
        How many rounds of how many runs.
    tell : Callable
        Told the share of the rounds that is done.
    pairs : sequence
        Subjects that are compared with each other in further rounds of their own, some after
        each of the others.
    """
    order = random.Random(settings.seed)
    samples = Samples({subject: [] for subject in subjects})
    samples.kernels = {model: {"calls": [], "whole": []} for model in kernels}
    turns: list[Callable[[], None]] = [
        *(
            _timing(subject, worker, settings, samples, samples.seconds[subject])
            for subject, worker in subjects.items()
        ),
        *(_kernels(model, worker, settings, samples) for model, worker in kernels.items()),
    ]
    if ceilings is not None:
        turns.append(lambda: samples.ceilings.append(ceilings.ask("ask", method="ceilings")))
    samples.pairs = {pair: ([], []) for pair in pairs}
    both = [
        [
            _timing(subject, subjects[subject], settings, samples, side)
            for subject, side in zip(pair, sides, strict=True)
        ]
        for pair, sides in samples.pairs.items()
    ]
    for done in range(settings.rounds):
        for place, turn in enumerate(order.sample(turns, len(turns))):
            turn()
            tell((done + (place + 1) / len(turns)) / settings.rounds)
        # As many after each round, and so many in the end.
        first, last = (settings.pair_rounds * n // settings.rounds for n in (done, done + 1))
        for two in both * (last - first):
            for turn in order.sample(two, len(two)):
                turn()
    for subject in samples.lost:
        del samples.seconds[subject]
    return samples


def _timing(
    subject: Subject,
    worker: Asked,
    settings: Settings,
    samples: Samples,
    into: list[list[float]],
) -> Callable[[], None]:
    def turn() -> None:
        if subject in samples.lost:
            return
        try:
            answer = worker.ask("time", warm=settings.warm, count=settings.runs)
        except Failure as failure:
            samples.lost[subject] = str(failure)
            return
        into.append([float(second) for second in answer["seconds"]])

    return turn


def _kernels(model: str, worker: Asked, settings: Settings, samples: Samples) -> Callable[[], None]:
    def turn() -> None:
        answer = worker.ask("ask", method="times", runs=settings.kernel_runs)
        for key, values in samples.kernels[model].items():
            values.extend(answer[key])

    return turn
