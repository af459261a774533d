"""Converts an exported program to one of ExecuTorch in int8, delegated to XNNPACK.

``python -m ... PROGRAM.pt2 MODEL.pte``, a process of its own. XNNPACK's quantiser marks what its
kernels take in int8, weights by channel and activations by tensor; PyTorch's PT2E flow learns the
ranges from images and converts. Inputs and outputs stay float32.
"""

from __future__ import annotations

import sys

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from shuffledeploy.deploy.benchmark.calibration_images import calibration_images
from shuffledeploy.deploy.benchmark.executorch_conversion import prepared_network, write_program


def main(program_file: str, model_file: str) -> None:
    """Convert and quantise a program of one image."""
    network, image = prepared_network(program_file, in_int8=True)
    quantiser = XNNPACKQuantizer().set_global(
        get_symmetric_quantization_config(is_per_channel=True)
    )
    exported = torch.export.export(network, (image,)).module()
    observed = prepare_pt2e(exported, quantiser)
    with torch.no_grad():
        for given in calibration_images(tuple(image.shape)):
            observed(torch.from_numpy(given).to(memory_format=torch.channels_last))
    write_program(convert_pt2e(observed), image, model_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
