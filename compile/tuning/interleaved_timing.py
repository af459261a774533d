"""Times many kernels in one process, in turns, so that what disturbs the machine hits all alike."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.tuning.latency_score import NS_PER_S

# One measurement takes at least this long.
MEASUREMENT_NS = 500_000.0
PAGE, LINE = 4096, 64

Arguments = tuple[tuple[tuple[int, ...], str], ...]


def time_interleaved(
    calls: list[tuple[str, Arguments]], rounds: int, seed: int
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
    memory = _memory([arguments for _, arguments in calls], generator)
    tensors = [_tensors(arguments, memory) for _, arguments in calls]
    modules = [tvm.runtime.load_module(path) for path, _ in calls]

    def measure(index: int, number: int) -> float:
        evaluate = modules[index].time_evaluator("main", tvm.cpu(), number=number, repeat=1)
        return float(evaluate(*tensors[index]).mean) * NS_PER_S

    numbers = []
    for index in range(len(calls)):
        measure(index, 1)
        numbers.append(max(1, round(MEASUREMENT_NS / measure(index, 2))))
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for index in generator.permutation(len(calls)):
            times[index].append(measure(int(index), numbers[index]))
    return times


def _memory(calls: Sequence[Arguments], generator: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Give each place among the arguments memory that all kernels share.

    Kernels may want the same weights in another shape. Places start apart within a page: an index
    of one and the same of another never agree in their last 12 bits, at which x86 cores take a load
    for one of what was just stored. A network's memory plan decides that, not a schedule.
    """
    places = []
    for place, alike in enumerate(zip(*calls, strict=True)):
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in alike]
        offset = place * PAGE // len(calls[0]) // LINE * LINE
        memory = np.frombuffer(mmap.mmap(-1, max(sizes) + PAGE), np.uint8)[offset:]
        if alike[0][1] == "float32":
            floats = memory[: max(sizes)].view(np.float32)
            floats[:] = generator.standard_normal(floats.shape, np.float32)
        places.append(memory)
    return places


def _tensors(arguments: Arguments, memory: Sequence[NDArray[np.uint8]]) -> list[Any]:
    import tvm

    return [
        tvm.runtime.from_dlpack(
            place[: math.prod(shape) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
        )
        for (shape, dtype), place in zip(arguments, memory, strict=True)
    ]
