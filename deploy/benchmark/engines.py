"""The engines that are compared: their names, packages and worker modules.

Each engine's own module (``onnxruntime_engine.py``...) is imported in its worker process only; this
one knows them by name and imports none of them.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

from shuffledeploy.compiler.ir.memory_layout import HALF, INT8
from shuffledeploy.model.errors import UsageError

OURS = "shuffledeploy"
#: The same networks without a runtime: measured where it is asked for.
STANDALONE = "standalone"


class RunningEngine(Protocol):
    """What an engine's module makes in the worker: one loaded network, one input, one output.

    The module has a function ``load(files, threads)`` that gives it; ``files`` are what
    :mod:`deploy.benchmark.conversion` made, by role.
    """

    def set_input(self, values: Any) -> None:
        """Take an image, float32 NCHW, for all runs to come."""

    def prepare(self) -> None:
        """Do what must be done before each run and is not timed."""

    def run(self) -> None:
        """Run one inference: this is what is timed."""

    def output(self) -> Any:
        """Give the logits of the last run as a NumPy array."""


@dataclass(frozen=True)
class Engine:
    """One engine.

    Attributes
    ----------
    name, label : str
        In options and JSON; in tables.
    module : str
        Of this package, imported in the worker.
    package : str
        The package on PyPI whose version is the engine's.
    model_format : str
        What it reads: ``bundle``, or a format of :mod:`deploy.benchmark.conversion`.
    how : str
        How it is prepared and run, for the report.
    needs_runner : bool
        Its module calls C functions that are compiled against its package.
    """

    name: str
    label: str
    module: str
    package: str
    model_format: str
    how: str
    needs_runner: bool = False

    @property
    def heading(self) -> str:
        """The label in lines that fit a narrow column."""
        return re.sub(r" |(?<=[a-z])(?=[A-Z])", "\n", self.label)

    @property
    def version(self) -> str | None:
        """Installed version; None where it is not installed."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


ENGINES = {
    engine.name: engine
    for engine in (
        Engine(
            OURS, "ours", "shuffledeploy.deploy.benchmark.our_engine", "shuffledeploy", "bundle",
            "bundle with the committed records; TVM runtime in process, input set once",
        ),
        Engine(
            STANDALONE, "no runtime", "shuffledeploy.deploy.benchmark.standalone_engine",
            "shuffledeploy", "bundle", "the same kernels as C functions, input set once",
        ),
        Engine(
            "onnxruntime", "ONNX Runtime", "shuffledeploy.deploy.benchmark.onnxruntime_engine",
            "onnxruntime",
            "onnx", "all graph optimisations, sequential, input and output bound once",
        ),
        Engine(
            "openvino", "OpenVINO", "shuffledeploy.deploy.benchmark.openvino_engine", "openvino",
            "onnx", "latency hint, one stream, precision hint f32, input set once",
        ),
        Engine(
            "ncnn", "ncnn", "shuffledeploy.deploy.benchmark.ncnn_engine", "ncnn", "ncnn",
            "by pnnx; fp16, bf16 and Vulkan off; a new extractor for each run, as it asks for",
        ),
        Engine(
            "mnn", "MNN", "shuffledeploy.deploy.benchmark.mnn_engine", "MNN", "mnn",
            "precision high; input copied before each run, which is not timed",
        ),
        Engine(
            "litert", "LiteRT", "shuffledeploy.deploy.benchmark.litert_engine", "ai-edge-litert",
            "litert", "by litert-torch, images channels last; XNNPACK delegate",
        ),
        Engine(
            "executorch", "ExecuTorch", "shuffledeploy.deploy.benchmark.executorch_engine",
            "executorch", "executorch",
            "by its XNNPACK partitioner, images channels last, padded and global average pools"
            " written as XNNPACK has them; called from C++, input copied before each run, which is"
            " not timed",
            needs_runner=True,
        ),
    )
}  # fmt: skip


#: The engines that compute in half precision, by the name of what they are in float32.
IN_HALF = {
    "ncnn": dataclasses.replace(
        ENGINES["ncnn"], module="shuffledeploy.deploy.benchmark.ncnn_half_engine",
        how="by pnnx; fp16 storage, packing and arithmetic on, as by default; bf16 and Vulkan off;"
        " a new extractor for each run, as it asks for",
    ),
    "mnn": dataclasses.replace(
        ENGINES["mnn"], module="shuffledeploy.deploy.benchmark.mnn_half_engine",
        how="precision low; input copied before each run, which is not timed",
    ),
}  # fmt: skip
#: The engines that compute in int8: those whose public tools quantise a network from pip alone.
IN_INT8 = {
    "onnxruntime": dataclasses.replace(
        ENGINES["onnxruntime"], model_format="onnx-int8",
        how="its own static quantiser, QDQ, weights by channel, activations by tensor, both signed,"
        " ranges of 8 images of noise; all graph optimisations, input and output bound once",
    ),
    "litert": dataclasses.replace(
        ENGINES["litert"], model_format="litert-int8",
        how="by litert-torch and ai-edge-quantizer's static int8, weights by channel, ranges of 8"
        " images of noise; images channels last; XNNPACK delegate",
    ),
    "executorch": dataclasses.replace(
        ENGINES["executorch"], model_format="executorch-int8",
        how="by XNNPACK's quantiser and PT2E, weights by channel, ranges of 8 images of noise;"
        " otherwise as in float32",
    ),
}  # fmt: skip
#: Of each precision, the engines that are not what they are in float32.
IN_PRECISION = {HALF: IN_HALF, INT8: IN_INT8}
#: What is compared where nothing is said.
USUAL_ENGINES = tuple(engine for engine in ENGINES.values() if engine.name != STANDALONE)


def find_engine(name: str) -> Engine:
    """Find an engine by its name.

    Raises
    ------
    UsageError
        There is none.
    """
    if name not in ENGINES:
        raise UsageError(f"unknown engine {name!r}: take {', '.join(ENGINES)}")
    return ENGINES[name]
