"""Latency of a kernel: on this machine in a process of its own, or on a board over RPC."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compile import TVM_VERSION
from compile.library import link
from compile.tuning.candidates import Workers
from compile.tuning.score import MEASURED_UNIT, KernelObject

REPEATS = 10
REPEAT_MS = 2
TIMEOUT_S = 30.0
NS_PER_S = 1e9


class LocalLatency:
    """Least mean time of `REPEATS` runs of at least `REPEAT_MS` on one core of this machine.

    The least, not the median: what disturbs a machine only ever adds time, and candidates are
    ranked, not reported.
    """

    unit = MEASURED_UNIT

    def __init__(self, timer: Workers, cpu: str) -> None:
        self._timer = timer
        timer.warm_up()
        self.source = f"measured: least mean of {REPEATS}, one thread, {cpu}, TVM {TVM_VERSION}"

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Time each kernel, one after the other."""
        calls = []
        for kernel in kernels:
            library = kernel.path.with_suffix(".so")
            link(str(library), [str(kernel.path)])
            calls.append((str(library), kernel.arguments))
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
    return _time(device.upload_and_load(library), device.session.cpu(), kernel.arguments)


def time_library(path: str, arguments: Any) -> float:
    """Load a library and time its kernel (runs in a worker); nanoseconds a call."""
    import tvm

    if hasattr(os, "sched_setaffinity") and platform.system() == "Linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return _time(tvm.runtime.load_module(str(Path(path))), tvm.cpu(), arguments)


def _time(module: Any, device: Any, arguments: Any) -> float:
    import tvm

    # Copies of a few: to draw a classifier's weights takes as long as to time it.
    numbers = np.random.default_rng(0).standard_normal(4099, np.float32)
    tensors = [
        tvm.runtime.tensor(
            np.resize(numbers, shape) if dtype == "float32" else np.zeros(shape, dtype), device
        )
        for shape, dtype in arguments
    ]
    evaluate = module.time_evaluator(
        "main", device, number=1, repeat=REPEATS, min_repeat_ms=REPEAT_MS
    )
    return float(min(evaluate(*tensors).results)) * NS_PER_S
