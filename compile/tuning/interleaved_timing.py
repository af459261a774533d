"""Times many kernels in one process, in turns, so that what disturbs the machine hits all alike."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from compile.tuning.latency_score import NS_PER_S

# One measurement takes at least this long.
MEASUREMENT_NS = 500_000.0


def time_interleaved(
    calls: list[tuple[str, tuple[tuple[tuple[int, ...], str], ...]]], rounds: int, seed: int
) -> list[list[float]]:
    """Time the kernels of libraries in turns, pinned to one core (runs in a worker).

    Parameters
    ----------
    calls : list
        Each library's path, and the shape and data type of each of its kernel's tensors.
    rounds : int
        How often each is measured, in another order each time.
    seed : int
        Of the orders and of what the tensors hold.

    Returns
    -------
    list of list of float
        Nanoseconds a call of each kernel in each round.
    """
    import tvm

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    generator = np.random.default_rng(seed)
    tensors: list[Any] = [
        tvm.runtime.tensor(
            generator.standard_normal(shape, np.float32)
            if dtype == "float32"
            else np.zeros(shape, dtype)
        )
        for shape, dtype in calls[0][1]
    ]
    modules = [tvm.runtime.load_module(path) for path, _ in calls]

    def measure(index: int, number: int) -> float:
        evaluate = modules[index].time_evaluator("main", tvm.cpu(), number=number, repeat=1)
        return float(evaluate(*tensors).mean) * NS_PER_S

    numbers = []
    for index in range(len(calls)):
        measure(index, 1)
        numbers.append(max(1, round(MEASUREMENT_NS / measure(index, 2))))
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for index in generator.permutation(len(calls)):
            times[index].append(measure(int(index), numbers[index]))
    return times
