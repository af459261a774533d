"""Our bundles in the benchmark's worker: TVM's runtime and nothing else of TVM."""

from __future__ import annotations

import os
from typing import Any

from shuffledeploy.deploy.benchmark import tvm_abi

ENTRY = b"main"
_CPU, _POOLED = 1, 2


class OurNetwork:
    """A bundle's library in the Relax virtual machine."""

    def __init__(self, library: str) -> None:
        self.machine = tvm_abi.load_module(library)["vm_load_executable"]()
        self.machine["vm_initialization"](_CPU, 0, _POOLED)
        self._set_input = self.machine["set_input"]
        #: Runs one inference.
        self.run = self.machine["invoke_stateful"].bound(ENTRY)

    def set_input(self, *values: Any) -> None:
        """Take an image, or each of a program's inputs; they are read where they lie."""
        self._set_input(ENTRY, *map(tvm_abi.tensor, values))

    def prepare(self) -> None:
        """Do nothing."""

    def output(self) -> Any:
        """Give the logits of the last run."""
        arity = self.machine["get_output_arity"](ENTRY)
        where = () if arity == -1 else (0,)
        return self.machine["get_output"](ENTRY, *where).array()


def load(files: dict[str, str], threads: int) -> OurNetwork:
    """Load a bundle's library, which was compiled for so many threads."""
    if threads > 1:
        tvm_abi.use_threads_on(sorted(os.sched_getaffinity(0))[:threads])
    return OurNetwork(files["library"])
