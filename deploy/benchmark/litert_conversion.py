"""Converts an exported program to a flatbuffer of LiteRT; run in LiteRT's own environment.

``python -m ... PROGRAM.pt2 MODEL.tflite``. Images get their channels last, as LiteRT's layers have
them: the converter turns the layers of the network around, and folds batch norms into convolutions.
"""

from __future__ import annotations

import sys

import litert_torch
import torch


def main(program_file: str, model_file: str) -> None:
    """Convert a program of one image."""
    program = torch.export.load(program_file)
    if program.example_inputs is None:
        raise ValueError(f"{program_file} has no example of its input")
    (image,) = program.example_inputs[0]
    network = litert_torch.to_channel_last_io(program.module(), args=[0])
    example = (image.permute(0, 2, 3, 1).contiguous(),)
    litert_torch.convert(network, example).export(model_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
