"""Times libraries of one network in turns, whole and call by call, on one core of this machine."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shuffledeploy.compiler.bundle.arrays import Array
from shuffledeploy.compiler.tuning.score import NetworkTimes
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.deploy.benchmark import tvm_abi
from shuffledeploy.deploy.benchmark.kernel_engine import KernelTimer
from shuffledeploy.deploy.benchmark.native import compiled
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

#: Rounds, in each of which every library has a turn, and inferences of a turn.
ROUNDS, RUNS = 13, 4
TURN_TIMEOUT_S = 180.0


def time_calls(
    libraries: Sequence[Path],
    inputs: Sequence[Array],
    threads: int,
    tell: Callable[[int, int], None],
) -> list[NetworkTimes]:
    """Time libraries in a process of their own, each in each round, in an order that changes.

    Parameters
    ----------
    libraries : sequence of Path
        Of one network, for this machine.
    inputs : sequence of numpy.ndarray
        What it is given.
    threads : int
        How many compute it.
    tell : Callable
        Told how many rounds of how many are done.

    Returns
    -------
    list of NetworkTimes
        One for each library.

    Raises
    ------
    Failure
        If a library does not run.
    """
    instrument = compiled("instrument")
    generator = np.random.default_rng(0)
    whole: list[list[float]] = [[] for _ in libraries]
    calls: list[list[tuple[float, ...]]] = [[] for _ in libraries]
    with scratch_folder("network-times-") as folder, Workers(1) as worker:
        np.savez(folder / "inputs.npz", allow_pickle=False, *inputs)

        def ask(function: Any, place: int, *more: Any) -> Any:
            call = (str(libraries[place]), instrument, str(folder / "inputs.npz"), threads, *more)
            (answer,) = worker.run_all(function, [call], TURN_TIMEOUT_S)
            if isinstance(answer, str):
                raise Failure(f"a library of the whole network cannot be timed: {answer}")
            return answer

        names = [ask(names_of_calls, place) for place in range(len(libraries))]
        for done in range(ROUNDS):
            tell(done, ROUNDS)
            for place in generator.permutation(len(libraries)):
                one, each = ask(turn, place, RUNS)
                whole[place].append(one)
                calls[place].append(tuple(each))
    return [
        NetworkTimes(tuple(names[place]), tuple(whole[place]), tuple(calls[place]))
        for place in range(len(libraries))
    ]


def names_of_calls(*library: str) -> list[str]:
    """Name the functions of one inference's calls, in order (runs in the worker)."""
    return [str(name) for name in _loaded(*library).calls()["names"]]


def turn(
    library: str, instrument: str, inputs: str, threads: int, runs: int
) -> tuple[float, list[float]]:  # fmt: skip
    """Time some inferences, whole and call by call: medians in nanoseconds (runs in the worker)."""
    times = _loaded(library, instrument, inputs, threads).times(runs)
    calls = np.median(np.asarray(times["calls"], np.float64), axis=0)
    return float(np.median(times["whole"])), [float(time) for time in calls]


@functools.cache
def _loaded(library: str, instrument: str, inputs: str, threads: int) -> KernelTimer:
    cores = sorted(os.sched_getaffinity(0))
    if threads > 1:
        tvm_abi.use_threads_on(cores[:threads])
    else:
        os.sched_setaffinity(0, {cores[-1]})
    network = KernelTimer(library, instrument)
    with np.load(inputs, allow_pickle=False) as arrays:
        network.set_input(*(arrays[f"arr_{place}"] for place in range(len(arrays.files))))
    return network
