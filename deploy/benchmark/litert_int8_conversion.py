"""Converts an exported program to a flatbuffer of LiteRT in int8; run in LiteRT's environment.

``python -m ... PROGRAM.pt2 MODEL.tflite``. The network in float32 first, then by ai-edge-quantizer
to static int8: weights by channel, activations by tensor, by their smallest and largest numbers on
the images. Inputs and outputs stay float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.recipe import AlgorithmName

from shuffledeploy.deploy.benchmark.calibration_images import calibration_images
from shuffledeploy.deploy.benchmark.litert_conversion import main as convert


def main(program_file: str, model_file: str) -> None:
    """Convert and quantise a program of one image."""
    plain = Path(model_file).with_suffix(".float.tflite")
    convert(program_file, str(plain))
    signatures = Interpreter(model_path=str(plain)).get_signature_list()
    ((signature, names),) = signatures.items()
    (name,) = names["inputs"]
    runner = Interpreter(model_path=str(plain)).get_signature_runner(signature)
    (details,) = runner.get_input_details().values()
    images = [{name: image} for image in calibration_images(tuple(map(int, details["shape"])))]
    maker = quantizer.Quantizer(str(plain), recipe.static_wi8_ai8())
    for border in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        maker.update_quantization_recipe(
            regex=".*", operation_name=border, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    maker.quantize(maker.calibrate({signature: images})).export_model(model_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
