"""ExecuTorch (a package of the same name) in the benchmark's worker, on its XNNPACK backend.

Its C++ interface runs the program, behind the C functions of ``executorch_runner.cpp``: neither
PyTorch nor the package's Python is in the process.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

# Each needs those before it.
_LIBRARIES = (
    "libexecutorch.so", "libexecutorch_threadpool.so", "libexecutorch_kernels_optimized.so",
    "libexecutorch_backend_xnnpack.so",
)  # fmt: skip


class ExecuTorchNetwork:
    """A loaded method, whose backend packed the weights once; images have their channels last."""

    def __init__(self, path: str, runner: str, threads: int) -> None:
        self._functions = _load_functions(runner)
        # The method reads both for as long as it lives.
        self._program = np.fromfile(path, np.uint8)
        self._image = np.zeros(0, np.float32)
        self._threads = threads
        self._network: int | None = None

    def set_input(self, values: Any) -> None:
        """Take an image."""
        image = np.ascontiguousarray(values.transpose(0, 2, 3, 1), np.float32)
        if self._network is None:
            self._image = image
            self._network = self._open()
        self._image[...] = image

    def _open(self) -> int:
        error = ctypes.c_int32()
        network = self._functions.network_open(
            self._program.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(self._program.size),
            self._image.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(self._image.size),
            ctypes.c_uint32(self._threads), ctypes.byref(error),
        )  # fmt: skip
        if not network:
            raise RuntimeError(f"ExecuTorch cannot load the program (error {error.value})")
        return int(network)

    def prepare(self) -> None:
        """Hand the image over: the memory of the program's input is used again in a run."""
        self._demand(self._functions.network_set)

    def run(self) -> None:
        """Run one inference."""
        self._demand(self._functions.network_run)

    def _demand(self, function: Any) -> None:
        if error := function(ctypes.c_void_p(self._network)):
            raise RuntimeError(f"ExecuTorch's {function.__name__} failed (error {error:#x})")

    def output(self) -> Any:
        """Give the logits of the last run."""
        count = ctypes.c_size_t()
        answer = self._functions.network_answer(
            ctypes.c_void_p(self._network), ctypes.byref(count)
        )  # fmt: skip
        return np.ctypeslib.as_array(answer, (count.value,)).reshape(1, -1).copy()


def _load_functions(runner: str) -> ctypes.CDLL:
    """Load the package's libraries, then the functions that stand on them."""
    found = find_spec("executorch")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("the package executorch is missing")
    folder = Path(next(iter(found.submodule_search_locations))) / "lib"
    for name in _LIBRARIES:
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    functions = ctypes.CDLL(runner)
    functions.network_open.restype = ctypes.c_void_p
    functions.network_answer.restype = ctypes.POINTER(ctypes.c_float)
    return functions


def load(files: dict[str, str], threads: int) -> ExecuTorchNetwork:
    """Load a program."""
    return ExecuTorchNetwork(files["model"], files["runner"], threads)
