"""OpenVINO in the benchmark's worker."""

from __future__ import annotations

from typing import Any

import openvino


class OpenVinoNetwork:
    """A compiled model and one request whose input tensor is set once."""

    def __init__(self, path: str, threads: int) -> None:
        self._core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # the worker is pinned as a whole
        }
        self._model = self._core.compile_model(path, "CPU", settings)
        self._request = self._model.create_infer_request()

    def set_input(self, values: Any) -> None:
        """Take an image."""
        self._tensor = openvino.Tensor(values, shared_memory=True)
        self._request.set_input_tensor(0, self._tensor)

    def prepare(self) -> None:
        """Do nothing."""

    def run(self) -> None:
        """Run one inference."""
        # `InferRequest.infer` of the Python API would wrap the outputs each time.
        self._request.start_async()
        self._request.wait()

    def output(self) -> Any:
        """Give the logits of the last run."""
        return self._request.get_output_tensor(0).data.copy()


def load(files: dict[str, str], threads: int) -> OpenVinoNetwork:
    """Load an ONNX file."""
    return OpenVinoNetwork(files["model"], threads)
