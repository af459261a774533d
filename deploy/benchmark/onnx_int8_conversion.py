"""Quantises a network in ONNX with ONNX Runtime's own quantiser; a process of its own.

``python -m ... NETWORK.onnx MODEL.onnx``. Static quantisation in the form that ONNX Runtime
recommends for ARM: pairs of QuantizeLinear and DequantizeLinear, weights int8 by channel,
activations int8 by tensor, by their smallest and largest numbers on the images.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from shuffledeploy.deploy.benchmark.calibration_images import calibration_images


class NoiseReader(CalibrationDataReader):
    """Gives the quantiser one image after another."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self._images = iter([{name: image} for image in calibration_images(shape)])

    def get_next(self) -> dict[str, Any] | None:
        """Give the next image; None after the last."""
        return next(self._images, None)


def main(network_file: str, model_file: str) -> None:
    """Quantise a network of one image."""
    prepared = Path(model_file).with_suffix(".prepared.onnx")
    quant_pre_process(network_file, str(prepared))
    (image,) = onnx.load(prepared).graph.input
    shape = tuple(part.dim_value for part in image.type.tensor_type.shape.dim)
    quantize_static(
        str(prepared), model_file, NoiseReader(image.name, shape), quant_format=QuantFormat.QDQ,
        per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
