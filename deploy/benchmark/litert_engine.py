"""LiteRT (the package ai-edge-litert) in the benchmark's worker, on its XNNPACK delegate."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter


class LiteRtNetwork:
    """An interpreter, whose delegate packed the weights once; images have their channels last."""

    def __init__(self, path: str, threads: int) -> None:
        self._interpreter = Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        (taken,), (given,) = (
            self._interpreter.get_input_details(), self._interpreter.get_output_details(),
        )  # fmt: skip
        self._input, self._output = taken["index"], given["index"]

    def set_input(self, values: Any) -> None:
        """Take an image."""
        image = np.ascontiguousarray(values.transpose(0, 2, 3, 1))
        self._interpreter.set_tensor(self._input, image)

    def prepare(self) -> None:
        """Do nothing: the input stays as it was set."""

    def run(self) -> None:
        """Run one inference."""
        self._interpreter.invoke()

    def output(self) -> Any:
        """Give the logits of the last run."""
        return self._interpreter.get_tensor(self._output)


def load(files: dict[str, str], threads: int) -> LiteRtNetwork:
    """Load a flatbuffer."""
    return LiteRtNetwork(files["model"], threads)
