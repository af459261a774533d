"""Latency of a kernel: on this machine in a process of its own, or on a board over RPC."""

from __future__ import annotations

import functools
import math
import mmap
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import TVM_VERSION
from compile.library import link
from compile.memory_layout import ALIGNMENT, FLOAT_BYTES
from compile.tuning.candidates import Workers
from compile.tuning.score import MEASURED_UNIT, KernelObject

REPEATS = 10
REPEAT_MS = 2
TIMEOUT_S = 30.0
NS_PER_S, NS_PER_MS = 1e9, 1e6
# Bytes of weights that a cache near the core would have from one call to the next, and bytes after
# which none has.
LEAST_WEIGHTS, FAR = 1 << 14, 1 << 22


class LocalLatency:
    """Time of a call on one core of this machine, weights as far away as in a network.

    Where they have `LEAST_WEIGHTS` bytes or more, the tenth percentile of calls with other weights
    each time (:func:`time_with_far_weights`); else the least mean of `REPEATS` runs of at least
    `REPEAT_MS`. Not the median: what disturbs a machine only ever adds time, and candidates are
    ranked, not reported.
    """

    unit = MEASURED_UNIT

    def __init__(self, timer: Workers, cpu: str) -> None:
        self._timer = timer
        timer.warm_up()
        self.source = f"measured: weights from afar, one thread, {cpu}, TVM {TVM_VERSION}"

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Time each kernel, one after the other."""
        calls = []
        for kernel in kernels:
            library = kernel.path.with_suffix(".so")
            link(str(library), [str(kernel.path)])
            calls.append((str(library), kernel.arguments, kernel.weights))
        return self._timer.run_all(time_library, calls, TIMEOUT_S)


def board_source(cpu: str) -> str:
    """Name the source of latencies that boards with a core measure."""
    return f"measured: least mean of {REPEATS}, one thread, {cpu} board, TVM {TVM_VERSION}"


def time_on_board(device: Any, kernel: KernelObject) -> float:
    """Upload a kernel to a board and time it there; nanoseconds a call.

    Parameters
    ----------
    device : Any
        Has ``session`` and ``upload_and_load(path)``.
    kernel : KernelObject
        What to time.
    """
    library = kernel.path.with_suffix(".so")
    link(str(library), [str(kernel.path)])
    cpu = device.session.cpu()
    tensors = _tensors(kernel.arguments, cpu)
    return _least_mean(device.upload_and_load(library), cpu, tensors)


def time_library(path: str, arguments: Any, weights: int | None) -> float:
    """Load a library and time its kernel (runs in a worker); nanoseconds a call."""
    import tvm

    if hasattr(os, "sched_setaffinity") and platform.system() == "Linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    module = tvm.runtime.load_module(str(Path(path)))
    tensors = _tensors(arguments, tvm.cpu())
    if weights is not None:
        shape = arguments[weights][0]
        if LEAST_WEIGHTS <= FLOAT_BYTES * math.prod(shape) < FAR:
            others = _far_weights(shape)
            return time_with_far_weights(module["main"], tensors, weights, others)
    return _least_mean(module, tvm.cpu(), tensors)


def time_with_far_weights(
    kernel: Callable[..., Any], tensors: Sequence[Any], weights: int, others: Sequence[Any]
) -> float:
    """Time calls with other weights each time: when some come again, no cache has them any more.

    In a network a whole network's weights pass by between two calls of a kernel. With weights that
    stand in the cache, schedules were chosen that took 1.07 times as long there (ShuffleNet 1x).

    Parameters
    ----------
    kernel : Callable
        Takes the tensors.
    tensors : sequence
        Its arguments.
    weights : int
        Which of them the weights are.
    others : sequence
        More weights of that shape.

    Returns
    -------
    float
        Nanoseconds: the tenth percentile of the calls of at least `REPEATS` times `REPEAT_MS`, each
        weights once at least.
    """
    rounds = [
        [*tensors[:weights], these, *tensors[weights + 1 :]]
        for these in (tensors[weights], *others)
    ]
    kernel(*tensors)
    times: list[int] = []
    while sum(times) < REPEATS * REPEAT_MS * NS_PER_MS:
        for arguments in rounds:
            began = time.perf_counter_ns()
            kernel(*arguments)
            times.append(time.perf_counter_ns() - began)
    return float(np.percentile(times, 10))


def _far_weights(shape: tuple[int, ...]) -> list[Any]:
    """Give `FAR` bytes as weights of a shape."""
    import tvm

    floats = math.prod(shape)
    pitch = -(-floats * FLOAT_BYTES // ALIGNMENT) * ALIGNMENT // FLOAT_BYTES
    starts = range(0, FAR // FLOAT_BYTES - pitch + 1, pitch)
    memory = _far_memory()
    return [
        tvm.runtime.from_dlpack(memory[start : start + floats].reshape(shape)) for start in starts
    ]


@functools.cache
def _far_memory() -> NDArray[np.float32]:
    """Give `FAR` bytes, kept from candidate to candidate: to make them takes as long as to time."""
    memory = np.frombuffer(mmap.mmap(-1, FAR), np.float32)
    memory[:] = np.random.default_rng(1).standard_normal(memory.size, np.float32)
    return memory


def _tensors(arguments: Sequence[tuple[tuple[int, ...], str]], device: Any) -> list[Any]:
    import tvm

    # Copies of a few: to draw a classifier's weights takes as long as to time it.
    numbers = np.random.default_rng(0).standard_normal(4099, np.float32)
    return [
        tvm.runtime.tensor(
            np.resize(numbers, shape) if dtype == "float32" else np.zeros(shape, dtype), device
        )
        for shape, dtype in arguments
    ]


def _least_mean(module: Any, device: Any, tensors: Sequence[Any]) -> float:
    evaluate = module.time_evaluator(
        "main", device, number=1, repeat=REPEATS, min_repeat_ms=REPEAT_MS
    )
    return float(min(evaluate(*tensors).results)) * NS_PER_S
