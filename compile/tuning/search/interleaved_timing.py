"""Times many kernels in one process, in turns, so that what disturbs the machine hits all alike."""

from __future__ import annotations

import functools
import itertools
import math
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shuffledeploy.compiler.ir.memory_layout import FLOAT_BYTES, aligned

NS_PER_S = 1e9
# One measurement takes at least this long.
MEASUREMENT_NS = 500_000.0
PAGE, LINE = 4096, 64
# Bytes of weights that a cache near the core would have from one call to the next, and bytes after
# which none has.
LEAST_WEIGHTS, FAR = 1 << 14, 1 << 22

Arguments = tuple[tuple[tuple[int, ...], str], ...]


def time_interleaved(
    calls: list[tuple[str, Arguments]],
    rounds: int,
    seed: int,
    weights: Sequence[int | None] = (),
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
    weights : sequence, optional
        Which of each kernel's tensors are weights. They are others in each call, so that no cache
        has them, as in a network, where all other layers' weights pass by between two calls.
        Without, they are as warm as everything.

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

    timers = [
        _timer(module, own, place)
        for module, own, place in itertools.zip_longest(modules, tensors, weights)
    ]

    numbers = []
    for index in range(len(calls)):
        timers[index](1)
        numbers.append(max(1, round(MEASUREMENT_NS / timers[index](2))))
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for index in generator.permutation(len(calls)):
            times[index].append(timers[index](numbers[index]))
    return times


def typical(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take each candidate's time from its rounds: the median, of times against their round's mean.

    Not the least: where a machine's clock rises for moments, the least tells whose turn it was.
    (Seen: one binary under two names, 131 and 203 us by the least, both 250 by the median.)

    Parameters
    ----------
    times : array of shape [kernels, rounds]
    """
    rounds = np.exp(np.log(times).mean(axis=0))
    return np.asarray(np.median(times / rounds, axis=1) * np.median(rounds), np.float64)


def _timer(module: Any, tensors: Sequence[Any], weights: int | None) -> Callable[[int], float]:
    """Give what times so many calls of a kernel; nanoseconds a call."""
    import tvm

    if weights is not None:
        shape = tuple(int(extent) for extent in tensors[weights].shape)
        if LEAST_WEIGHTS <= FLOAT_BYTES * math.prod(shape) < FAR:
            turns = itertools.cycle(
                [*tensors[:weights], these, *tensors[weights + 1 :]]
                for these in _far_weights(shape)
            )
            return lambda number: time_turns(module["main"], turns, number)

    def evaluate(number: int) -> float:
        evaluator = module.time_evaluator("main", tvm.cpu(), number=number, repeat=1)
        return float(evaluator(*tensors).mean) * NS_PER_S

    return evaluate


def time_turns(kernel: Callable[..., Any], turns: Iterator[Sequence[Any]], number: int) -> float:
    """Time so many calls with the arguments whose turn it is; nanoseconds a call."""
    calls = list(itertools.islice(turns, number))
    began = time.perf_counter_ns()
    for arguments in calls:
        kernel(*arguments)
    return (time.perf_counter_ns() - began) / number


def _far_weights(shape: tuple[int, ...]) -> list[Any]:
    """Give `FAR` bytes as weights of a shape."""
    import tvm

    floats = math.prod(shape)
    pitch = aligned(floats * FLOAT_BYTES) // FLOAT_BYTES
    starts = range(0, FAR // FLOAT_BYTES - pitch + 1, pitch)
    memory = _far_memory()
    return [
        tvm.runtime.from_dlpack(memory[start : start + floats].reshape(shape)) for start in starts
    ]


@functools.cache
def _far_memory() -> NDArray[np.float32]:
    """Give `FAR` bytes, kept from batch to batch: to make them takes as long as to time."""
    memory = np.frombuffer(mmap.mmap(-1, FAR), np.float32)
    memory[:] = np.random.default_rng(1).standard_normal(memory.size, np.float32)
    return memory


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
