"""Candidates whose time on this machine and whose score are both known: the proof of a score."""

from __future__ import annotations

import dataclasses
import itertools
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shuffledeploy.compiler.library import link
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.score import DetailedScore, KernelObject, Score
from shuffledeploy.compiler.tuning.search.candidates import Workers, build_candidates
from shuffledeploy.compiler.tuning.search.evolution import CostModel, TaskSearch
from shuffledeploy.compiler.tuning.search.interleaved_timing import time_interleaved, typical
from shuffledeploy.compiler.tuning.search.stock_space import stock_schedules
from shuffledeploy.compiler.tuning.search.tasks import Task, find_tasks
from shuffledeploy.compiler.zoo import trace_network
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.registry import names
from shuffledeploy.model.scratch import scratch_folder

# A kernel's name -> its kind. A network's first layer reads its image, of 1 or 3 channels.
KINDS = {
    "grouped pointwise": r"conv1x1_g\d+_",
    "depthwise": r"depthwise",
    "first convolution": r"conv\d+x\d+(s\d+)?_[13]x",
    "classifier": r"linear_",
}
KERNELS_OF_A_KIND = 3
NETWORKS = 5
# Of each kernel, and how many of them the tuner's own search proposes; the rest is stock.
CANDIDATES, SEARCHED = 64, 32
BATCH = 16
# The emulator takes half a second for a candidate of so many; those of ShuffleNet 1x have 2.4
# million in the mean.
MOST_MULTIPLY_ADDS = 6_000_000
SEARCH_ROUNDS, ROUNDS = 3, 21
TIMEOUT_S = 240.0
# Of the whole time, about: to build and roughly time candidates, and to score them.
BUILDING, SCORING = 0.45, 0.35


@dataclasses.dataclass(frozen=True)
class Sample:
    """The candidates of one kernel.

    Attributes
    ----------
    kernel, kind : str
        Its name and kind.
    times : array
        Nanoseconds of each candidate: measured, see `typical`.
    noise : array
        The same from the odd rounds alone.
    scores : dict
        Score of each candidate by the score's name: ``estimate``, ``instructions``, ...
    is_stock : array of bool
        Whether each comes from the stock space, not from the tuner's own search.
    """

    kernel: str
    kind: str
    times: NDArray[np.float64]
    noise: NDArray[np.float64]
    scores: dict[str, NDArray[np.float64]]
    is_stock: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A kernel that was drawn."""

    kind: str
    network: str
    task: Task


@dataclasses.dataclass(frozen=True)
class DrawnCandidate:
    """A candidate that was built, with its library beside it."""

    kernel: KernelObject
    is_stock: bool


def draw_kernels(
    seed: int, target: CompileTarget, say: Callable[[str], None] = lambda _: None
) -> list[Drawn]:
    """Draw kernels of each kind from networks of the zoo, both by the seed.

    Raises
    ------
    Failure
        If the zoo has too few kernels of a kind.
    """
    generator = np.random.default_rng(seed)
    found: dict[str, dict[str, Drawn]] = {kind: {} for kind in KINDS}
    for number, name in enumerate(generator.permutation(names())):
        if number >= NETWORKS and min(map(len, found.values())) >= KERNELS_OF_A_KIND:
            break
        say(f"lowering {name}")
        for task in find_tasks(lower(trace_network(str(name)), target), target):
            if int(task.function.attrs["multiply_adds"]) > MOST_MULTIPLY_ADDS:
                continue
            for kind, pattern in KINDS.items():
                if re.match(pattern, task.name):
                    found[kind].setdefault(task.name, Drawn(kind, str(name), task))
    drawn = []
    for kind, tasks in found.items():
        if len(tasks) < KERNELS_OF_A_KIND:
            raise Failure(f"the zoo has only {len(tasks)} kernels of the kind {kind}")
        chosen = generator.permutation(sorted(tasks))[:KERNELS_OF_A_KIND]
        drawn += [tasks[str(name)] for name in chosen]
    return drawn


def draw_candidates(
    drawn: Drawn, target: CompileTarget, folder: Path, seed: int, workers: Workers, timer: Workers
) -> list[DrawnCandidate]:
    """Draw good and bad candidates of a kernel, built and linked.

    A search of the tuner's own is steered by times, roughly taken on this machine: its first batch
    is random, the later ones better. The score that is to be proved has no say. The others are
    random draws of MetaSchedule's stock space, more of them where the search ends early.
    """
    function = drawn.task.function
    search = TaskSearch(
        function, target.core, target.tvm_target, CostModel(seed), seed, batch=BATCH
    )
    kept: list[DrawnCandidate] = []
    codes: set[bytes] = set()
    while len(kept) < SEARCHED and (proposals := search.propose()):
        built = _build([p.schedule.mod["main"] for p in proposals], target, folder, workers)
        good = [kernel for kernel in built if kernel is not None]
        found = iter(typical(measure(good, timer, seed, SEARCH_ROUNDS))) if good else iter(())
        search.report(proposals, [None if k is None else float(next(found)) for k in built])
        kept += [DrawnCandidate(kernel, is_stock=False) for kernel in _unlike(codes, good)]
    del kept[SEARCHED:]
    more = stock_schedules(function, target.tvm_target, seed)
    while some := list(itertools.islice(more, min(BATCH, CANDIDATES - len(kept)))):
        built = _build(some, target, folder, workers)
        good = [kernel for kernel in built if kernel is not None]
        kept += [DrawnCandidate(kernel, is_stock=True) for kernel in _unlike(codes, good)]
    return kept


def _unlike(codes: set[bytes], kernels: Sequence[KernelObject]) -> list[KernelObject]:
    """Keep kernels whose code none before had: schedules may differ where their code does not."""
    unlike = []
    for kernel in kernels:
        code = kernel.path.read_bytes()
        if code not in codes:
            codes.add(code)
            unlike.append(kernel)
    return unlike


def _build(
    functions: Sequence[Any], target: CompileTarget, folder: Path, workers: Workers
) -> list[KernelObject | None]:
    """Build and link scheduled kernels, None for what cannot be built."""
    built = build_candidates(functions, target, folder, workers)
    kernels = [kernel if isinstance(kernel, KernelObject) else None for kernel in built]
    for kernel in filter(None, kernels):
        link(str(kernel.path.with_suffix(".so")), [str(kernel.path)])
    return kernels


def measure(
    kernels: Sequence[KernelObject], timer: Workers, seed: int, rounds: int
) -> NDArray[np.float64]:
    """Time kernels on this machine, in turns.

    Returns
    -------
    array of shape [kernels, rounds]
        Nanoseconds a call.

    Raises
    ------
    Failure
        If the process that times them dies.
    """
    calls = [(str(kernel.path.with_suffix(".so")), kernel.arguments) for kernel in kernels]
    (answer,) = timer.run_all(time_interleaved, [(calls, rounds, seed)], TIMEOUT_S)
    if isinstance(answer, str):
        raise Failure(f"candidates cannot be timed here: {answer}")
    return np.asarray(answer, np.float64)


def sample_kernels(
    drawn: Sequence[Drawn],
    target: CompileTarget,
    score: Score,
    seed: int,
    say: Callable[[str, float], None] = lambda *_: None,
) -> list[Sample]:
    """Draw candidates of kernels, score them, and time them all.

    Parameters
    ----------
    drawn : sequence of Drawn
        The kernels.
    target : CompileTarget
        This machine.
    score : Score
        What is to be proved.
    seed : int
        Decides what is drawn.
    say : Callable
        Told what is being done, and which share of all is done.
    """
    count = len(drawn)
    with (
        scratch_folder("validation-") as scratch,
        Workers() as workers,
        Workers(1) as timer,
    ):
        candidates: list[list[DrawnCandidate]] = []
        for number, one in enumerate(drawn):
            what = f"building candidates of {one.task.name} ({one.network})"
            say(what, BUILDING * number / count)
            folder = scratch / str(number)
            folder.mkdir()
            candidates.append(draw_candidates(one, target, folder, seed, workers, timer))
        workers.stop()
        scores = []
        for number, (one, drawn_ones) in enumerate(zip(drawn, candidates, strict=True)):
            share = BUILDING + SCORING * number / count
            say(f"scoring candidates of {one.task.name}", share)
            began = time.monotonic()
            scores.append(score([candidate.kernel for candidate in drawn_ones]))
            took = (time.monotonic() - began) / max(1, len(drawn_ones))
            scored = f"scored {len(drawn_ones)} candidates of {one.task.name}, {took:.2f} s each"
            say(scored, share + SCORING / count)
        samples = []
        for number, (one, drawn_ones, found) in enumerate(
            zip(drawn, candidates, scores, strict=True)
        ):
            share = BUILDING + SCORING + (1 - BUILDING - SCORING) * number / count
            say(f"timing candidates of {one.task.name}, pinned and in turns", share)
            kernels = [candidate.kernel for candidate in drawn_ones]
            times = measure(kernels, timer, seed, ROUNDS)
            is_stock = np.array([candidate.is_stock for candidate in drawn_ones])
            samples.append(_sample(one, times, found, is_stock))
    return samples


def _sample(
    drawn: Drawn,
    times: NDArray[np.float64],
    scores: Sequence[float | str],
    is_stock: NDArray[np.bool_],
) -> Sample:
    """Put together what is known of those candidates that have a score."""
    good = [i for i, score in enumerate(scores) if isinstance(score, DetailedScore)]
    columns: dict[str, list[float]] = {}
    for index in good:
        score: Any = scores[index]
        figures = {"estimate": float(score), "disagree": 0.0, "outlying": 0.0, **score.details}
        for name, value in figures.items():
            columns.setdefault(name, []).append(float(value))
    return Sample(
        drawn.task.name, drawn.kind, typical(times[good]), typical(times[good][:, 1::2]),
        {name: np.asarray(values) for name, values in columns.items()},
        is_stock[good],
    )  # fmt: skip
