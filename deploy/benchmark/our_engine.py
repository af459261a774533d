"""Our bundles in the benchmark's worker: TVM's runtime and nothing else of TVM.

A bundle needs `libtvm_ffi.so` and `libtvm_runtime.so`. ``import tvm`` would load the compiler too
(260 MB), and ``import tvm_ffi`` imports PyTorch where it finds it: the worker forbids that, as a
board without PyTorch does.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any

ENTRY = "main"
_CPU, _POOLED = 1, 2


class OurNetwork:
    """A bundle's library in the Relax virtual machine."""

    def __init__(self, library: str) -> None:
        self.ffi = _runtime()
        self.machine = self.ffi.load_module(library)["vm_load_executable"]()
        self.machine["vm_initialization"](_CPU, 0, _POOLED)
        self._set_input = self.machine["set_input"]
        self._invoke = self.machine["invoke_stateful"]

    def set_input(self, values: Any) -> None:
        """Take an image."""
        self._set_input(ENTRY, self.ffi.from_dlpack(values))

    def prepare(self) -> None:
        """Do nothing."""

    def run(self) -> None:
        """Run one inference."""
        self._invoke(ENTRY)

    def output(self) -> Any:
        """Give the logits of the last run."""
        import numpy as np

        arity = int(self.machine["get_output_arity"](ENTRY))
        where = () if arity == -1 else (0,)
        return np.from_dlpack(self.machine["get_output"](ENTRY, *where)).copy()


def _runtime() -> Any:
    """Load TVM's runtime alone."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    import tvm_ffi

    found = importlib.util.find_spec("tvm")
    if found is None or found.origin is None:
        raise ImportError("apache-tvm is not installed")
    library = Path(found.origin).parent / "lib" / "libtvm_runtime.so"
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return tvm_ffi


def load(files: dict[str, str], threads: int) -> OurNetwork:
    """Load a bundle's library; its kernels run on the calling thread, whatever `threads` is."""
    del threads
    return OurNetwork(files["library"])
