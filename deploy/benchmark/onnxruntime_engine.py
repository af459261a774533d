"""ONNX Runtime in the benchmark's worker."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime


class OnnxRuntimeNetwork:
    """A session with its input and output bound once: nothing is copied or allocated in a run."""

    def __init__(self, path: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Threads that spin would take time from the other engines' turns.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        (self._input,) = self._session.get_inputs()
        (self._output,) = self._session.get_outputs()

    def set_input(self, values: Any) -> None:
        """Take an image."""
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy(values)
        self._binding.bind_ortvalue_input(self._input.name, self._value)
        self._answer = onnxruntime.OrtValue.ortvalue_from_numpy(
            np.zeros(self._output.shape, np.float32)
        )
        self._binding.bind_ortvalue_output(self._output.name, self._answer)

    def prepare(self) -> None:
        """Do nothing."""

    def run(self) -> None:
        """Run one inference."""
        self._session.run_with_iobinding(self._binding)

    def output(self) -> Any:
        """Give the logits of the last run."""
        return self._answer.numpy().copy()


def load(files: dict[str, str], threads: int) -> OnnxRuntimeNetwork:
    """Load an ONNX file."""
    return OnnxRuntimeNetwork(files["model"], threads)
