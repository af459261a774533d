"""MNN (a package of the same name) in the benchmark's worker."""

from __future__ import annotations

from typing import Any

import MNN
import numpy as np


class MnnNetwork:
    """A session. It overwrites its input: that is copied before each run, and not timed.

    Parameters
    ----------
    path : str
        A file of MNN's converter.
    threads : int
        That it may use.
    precision : str
        ``high`` (float32) or ``low`` (half where the core computes in it).
    """

    def __init__(self, path: str, threads: int, precision: str = "high") -> None:
        self._interpreter = MNN.Interpreter(path)
        self._session = self._interpreter.createSession(
            {"backend": "CPU", "precision": precision, "numThread": threads}
        )
        self._input = self._interpreter.getSessionInput(self._session)
        self._output = self._interpreter.getSessionOutput(self._session)

    def set_input(self, values: Any) -> None:
        """Take an image."""
        self._image = MNN.Tensor(
            self._input.getShape(), MNN.Halide_Type_Float, values,
            MNN.Tensor_DimensionType_Caffe,
        )  # fmt: skip

    def prepare(self) -> None:
        """Copy the input: a second run without would answer wrongly."""
        self._input.copyFrom(self._image)

    def run(self) -> None:
        """Run one inference."""
        self._interpreter.runSession(self._session)

    def output(self) -> Any:
        """Give the logits of the last run."""
        shape = self._output.getShape()
        host = MNN.Tensor(
            shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32),
            MNN.Tensor_DimensionType_Caffe,
        )  # fmt: skip
        self._output.copyToHostTensor(host)
        return np.array(host.getData(), np.float32).reshape(shape)


def load(files: dict[str, str], threads: int) -> MnnNetwork:
    """Load a file of MNN's converter."""
    return MnnNetwork(files["model"], threads)
