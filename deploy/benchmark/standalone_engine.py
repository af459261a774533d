"""Our networks without a runtime in the benchmark's worker: a C function, and nothing of TVM."""

from __future__ import annotations

import ctypes
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

_ALIGNMENT = 64


class StandaloneFunction:
    """The shared library of a standalone network with one input and one output."""

    def __init__(self, files: dict[str, str]) -> None:
        manifest = json.loads(Path(files["manifest"]).read_text())
        made, shape = manifest["standalone"], manifest["outputs"][0]["shape"]
        self._function = ctypes.CDLL(files["library"])[f"{made['name']}_run"]
        self._workspace = _aligned(made["workspace"])
        self._logits = _aligned(np.dtype(np.float32).itemsize * math.prod(shape))
        self._input = self._logits
        self._pointers: tuple[ctypes.c_void_p, ...] = ()

    def set_input(self, values: Any) -> None:
        """Take an image; it is copied to where it is aligned."""
        self._input = _aligned(values.nbytes)
        self._input[:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        places = (self._input, self._logits, self._workspace)
        self._pointers = tuple(ctypes.c_void_p(place.ctypes.data) for place in places)

    def prepare(self) -> None:
        """Do nothing."""

    def run(self) -> None:
        """Run one inference."""
        if self._function(*self._pointers):
            raise RuntimeError("the network refused its memory")

    def output(self) -> Any:
        """Give the logits of the last run."""
        return self._logits.view(np.float32)[None]


def _aligned(size: int) -> Any:
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


def load(files: dict[str, str], threads: int) -> StandaloneFunction:
    """Load a network; it runs on the calling thread, whatever `threads` is."""
    del threads
    return StandaloneFunction(files)
