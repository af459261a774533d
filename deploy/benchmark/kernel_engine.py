"""Times each kernel of a bundle while the network runs: in its order, with the caches it leaves.

The virtual machine calls an instrument before and after each of its calls. Here that is a few
instructions of C that note the time (`instrument.c`), so that a call is timed to some 30 ns. Names
and shapes, which do not change between runs, are asked of a slow instrument once.
"""

from __future__ import annotations

import ctypes
import math
import time
from typing import Any

import numpy as np

from shuffledeploy.deploy.benchmark import tvm_abi
from shuffledeploy.deploy.benchmark.our_engine import OurNetwork

_CAPACITY = 1 << 16
BUDGET_S = 0.3


class KernelTimer(OurNetwork):
    """A bundle that tells how long each of its calls takes."""

    def __init__(self, library: str, instrument: str) -> None:
        super().__init__(library)
        self._instrument = tvm_abi.load_module(instrument)["instrument"]
        # The same library again: its counters, by their names.
        loaded = ctypes.CDLL(instrument)
        self._count = ctypes.c_int32.in_dll(loaded, "instrument_count")
        stamps = (ctypes.c_int64 * _CAPACITY).in_dll(loaded, "instrument_stamps")
        self._stamps = np.ctypeslib.as_array(stamps)

    def calls(self) -> dict[str, Any]:
        """List the virtual machine's calls of one inference, in order.

        Returns
        -------
        dict
            ``names``; and ``bytes`` of all tensors that a call is given, each read or written once
            (constants are not given, see :mod:`compiler.passes.memory.constants_in_place`).
        """
        names: list[str] = []
        sizes: list[int] = []

        def note(_: Any, name: str, before: int, __: Any, *arguments: Any) -> None:
            if before:
                names.append(name)
                shapes = [argument for argument in arguments if isinstance(argument, tuple)]
                sizes.append(sum(4 * math.prod(shape) for shape in shapes))

        self.machine["set_instrument"](tvm_abi.function(note))
        self.run()
        self.machine["set_instrument"](None)
        return {"names": names, "bytes": sizes}

    def times(self, runs: int) -> dict[str, Any]:
        """Time each call of some runs, after one that warms the caches; nanoseconds.

        A network that takes longer than `BUDGET_S` gets one run alone, not warmed: to it, the time
        in which caches fill is nothing.

        Returns
        -------
        dict
            ``calls``: for each run, the time of each call. ``whole``: times of as many whole runs
            without the instrument, in between.
        """
        calls: list[list[int]] = []
        whole: list[int] = []
        start = time.monotonic()
        for run in range(runs + 1):
            if whole and time.monotonic() - start > BUDGET_S:
                break
            self.machine["set_instrument"](self._instrument)
            self._count.value = 0
            self.run()
            stamps = self._stamps[: self._count.value].copy()
            self.machine["set_instrument"](None)
            began = time.perf_counter_ns()
            self.run()
            if run or time.monotonic() - start > BUDGET_S:
                whole.append(time.perf_counter_ns() - began)
                calls.append((stamps[1::2] - stamps[::2]).tolist())
        return {"calls": calls, "whole": whole}


def load(files: dict[str, str], threads: int) -> KernelTimer:
    """Load a bundle's library and the instrument."""
    del threads
    return KernelTimer(files["library"], files["instrument"])
