"""Latency of a kernel: on this machine in a process of its own, or on a board over RPC."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shuffledeploy.compiler import TVM_VERSION
from shuffledeploy.compiler.library import link
from shuffledeploy.compiler.tuning.score import MEASURED_UNIT, KernelObject
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.compiler.tuning.search.interleaved_timing import (
    NS_PER_S,
    Arguments,
    time_interleaved,
    typical,
)

TIMEOUT_S, START_TIMEOUT_S = 30.0, 180.0
# Of what is timed in turns on this machine.
ROUNDS, SEED, TURNS_TIMEOUT_S = 15, 0, 180.0
# Of what is timed on a board.
REPEATS, REPEAT_MS = 10, 2


class LocalLatency:
    """Time of a call on one core of this machine, weights as far away as in a network.

    Schedules of one kernel that come together are timed in turns (:func:`time_interleaved`): what
    slows a machine down for a while hits all alike.
    """

    unit = MEASURED_UNIT

    def __init__(self, timer: Workers, cpu: str) -> None:
        self._timer = timer
        timer.warm_up()
        self.source = f"measured: in turns, weights from afar, one thread, {cpu}, TVM {TVM_VERSION}"

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Time each kernel's schedules in turns, those that work alone."""
        calls: list[tuple[str, Arguments]] = []
        for kernel in kernels:
            library = kernel.path.with_suffix(".so")
            link(str(library), [str(kernel.path)])
            calls.append((str(library), kernel.arguments))
        # To start the process, and import TVM there, is not the first kernel's time.
        self._timer.run_all(os.getpid, [()], START_TIMEOUT_S)
        alone = self._timer.run_all(run_once, calls, TIMEOUT_S)
        scores: list[float | str] = [str(reason) for reason in alone]
        for places in _of_one_kernel(kernels):
            working = [place for place in places if not isinstance(alone[place], str)]
            if working:
                times = self._in_turns(
                    [calls[place] for place in working],
                    [kernels[place].weights for place in working],
                )
                for place, time in zip(working, times, strict=True):
                    scores[place] = time
        return scores

    def _in_turns(
        self, calls: list[tuple[str, Arguments]], weights: list[int | None]
    ) -> list[float | str]:
        (times,) = self._timer.run_all(
            time_interleaved, [(calls, ROUNDS, SEED, weights)], TURNS_TIMEOUT_S
        )
        if isinstance(times, str):
            return [times] * len(calls)
        return [float(time) for time in typical(np.asarray(times, np.float64))]


def _of_one_kernel(kernels: Sequence[KernelObject]) -> list[list[int]]:
    """List the places of schedules of one kernel: all take the same tensors but for the weights."""
    alike: dict[Any, list[int]] = {}
    for place, kernel in enumerate(kernels):
        own = [
            (dtype, math.prod(shape)) if number == kernel.weights else (dtype, shape)
            for number, (shape, dtype) in enumerate(kernel.arguments)
        ]
        alike.setdefault(tuple(own), []).append(place)
    return list(alike.values())


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
    module, cpu = device.upload_and_load(library), device.session.cpu()
    evaluate = module.time_evaluator("main", cpu, number=1, repeat=REPEATS, min_repeat_ms=REPEAT_MS)
    return float(min(evaluate(*_tensors(kernel.arguments, cpu)).results)) * NS_PER_S


def run_once(path: str, arguments: Arguments) -> None:
    """Load a library and call its kernel (runs in a worker): one that crashes is found alone."""
    import tvm

    tensors = [tvm.runtime.tensor(np.zeros(shape, dtype)) for shape, dtype in arguments]
    tvm.runtime.load_module(str(Path(path)))["main"](*tensors)


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
