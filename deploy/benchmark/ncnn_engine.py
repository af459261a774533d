"""ncnn (a package of the same name) in the benchmark's worker."""

from __future__ import annotations

from typing import Any

import ncnn
import numpy as np

INPUT, OUTPUT = "in0", "out0"  # the names that pnnx gives

_HALF_PRECISION = (
    "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage",
    "use_bf16_packed",
)  # fmt: skip


class NcnnNetwork:
    """A network of which each run needs a new extractor.

    Parameters
    ----------
    parameters, weights : str
        Files that pnnx wrote.
    threads : int
        That it may use.
    in_half : bool
        Whether it may compute in half precision where the core does: its own default.
    """

    def __init__(
        self, parameters: str, weights: str, threads: int, *, in_half: bool = False
    ) -> None:
        self._network = ncnn.Net()
        options = self._network.opt
        options.num_threads = threads
        options.use_vulkan_compute = False
        for name in _HALF_PRECISION:
            if hasattr(options, name):  # on by default, some of them
                setattr(options, name, in_half and "fp16" in name)
        if self._network.load_param(parameters) or self._network.load_model(weights):
            raise RuntimeError("ncnn cannot read what pnnx wrote")

    def set_input(self, values: Any) -> None:
        """Take an image."""
        # ncnn knows no batch: channels, height, width.
        self._values = np.ascontiguousarray(values[0])
        self._image = ncnn.Mat(self._values)

    def prepare(self) -> None:
        """Do nothing: an extractor is part of a run."""

    def run(self) -> None:
        """Run one inference."""
        extractor = self._network.create_extractor()
        extractor.input(INPUT, self._image)
        status, self._answer = extractor.extract(OUTPUT)
        if status:
            raise RuntimeError(f"ncnn's extract returned {status}")

    def output(self) -> Any:
        """Give the logits of the last run."""
        return np.array(self._answer).reshape(1, -1)


def load(files: dict[str, str], threads: int) -> NcnnNetwork:
    """Load what pnnx wrote."""
    return NcnnNetwork(files["parameters"], files["weights"], threads)
