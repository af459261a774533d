"""A network of ncnn's own benchmark in the worker: its `.param` file, empty weights.

Options and allocators are those of ncnn's `benchmark/benchncnn.cpp` (read at commit a4d2ea1d of
2026-07-22; those of 2023 are the same): half precision is allowed and taken where the core has it.
"""

from __future__ import annotations

from typing import Any

import ncnn
import numpy as np

_ALLOWED = (
    "lightmode", "use_winograd_convolution", "use_sgemm_convolution", "use_int8_inference",
    "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_int8_storage",
    "use_int8_arithmetic", "use_packing_layout",
)  # fmt: skip


class EmptyNetwork:
    """A network with zeros for weights, which takes as long as any."""

    def __init__(self, parameters: str, threads: int) -> None:
        # Python lets go of these in this order, and what lies in an allocator has to go before it.
        self._answers: list[Any] = []
        self._network = ncnn.Net()
        self._blobs, self._workspace = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
        for allocator in (self._blobs, self._workspace):
            allocator.set_size_compare_ratio(0.0)
        options = self._network.opt
        for name in _ALLOWED:
            setattr(options, name, True)
        options.num_threads = threads
        options.use_vulkan_compute = False
        options.blob_allocator, options.workspace_allocator = self._blobs, self._workspace
        if self._network.load_param(parameters):
            raise RuntimeError("ncnn cannot read the .param file")
        self._network.load_model(ncnn.DataReaderFromEmpty())
        self._inputs = list(self._network.input_names())
        self._outputs = list(self._network.output_names())

    def set_input(self, values: Any) -> None:
        """Take the shape and the value of an array of one value."""
        _, channels, height, width = values.shape
        self._image = ncnn.Mat((width, height, channels))
        self._image.fill(float(values.flat[0]))

    def prepare(self) -> None:
        """Do nothing: an extractor is part of a run."""

    def run(self) -> None:
        """Run one inference, to all outputs."""
        extractor = self._network.create_extractor()
        for name in self._inputs:
            extractor.input(name, self._image)
        answers = [extractor.extract(name) for name in self._outputs]
        if any(status for status, _ in answers):
            raise RuntimeError("ncnn's extract failed")
        self._answers = [answer for _, answer in answers]

    def output(self) -> Any:
        """Give all outputs as one vector; a detector that found nothing has an empty one."""
        found = [answer for answer in self._answers if not answer.empty()]
        return np.concatenate([np.zeros(0), *(np.array(answer).ravel() for answer in found)])


def load(files: dict[str, str], threads: int) -> EmptyNetwork:
    """Load a network from its description."""
    return EmptyNetwork(files["parameters"], threads)
