"""Whether a program takes the pictures, and has the classes, that a user says it has."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from shuffledeploy.compiler.bundle.manifest_entries import Tensor
from shuffledeploy.compiler.frontend.program import input_specs
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.registry import Normalisation


def require_fits(
    exported: ExportedProgram, normalisation: Normalisation | None, labels: tuple[str, ...]
) -> None:
    """Hold channels and classes against a program's input and output.

    Raises
    ------
    UsageError
        The program takes no image of so many channels, or has not as many logits as labels.
    """
    inputs = input_specs(exported)
    if normalisation is not None and not _takes(inputs, normalisation.channels):
        shapes = ", ".join(str(tensor.shape) for tensor in inputs)
        raise UsageError(
            f"mean and std are of {normalisation.channels} channels, and the network takes"
            f" {shapes}: an image is (1, channels, height, width)"
        )
    logits = _first_answer(exported)
    if labels and (not logits or logits[-1] != len(labels)):
        raise UsageError(f"there are {len(labels)} labels, and the network answers with {logits}")


def _takes(inputs: tuple[Tensor, ...], channels: int) -> bool:
    shape = inputs[0].shape if len(inputs) == 1 else ()
    return len(shape) == 4 and shape[1] == channels


def _first_answer(exported: ExportedProgram) -> tuple[int, ...]:
    """Give the shape of the program's first output; empty where it is no tensor of fixed shape."""
    answers = {str(name) for name in exported.graph_signature.user_outputs[:1]}
    values = [node.meta.get("val") for node in exported.graph.nodes if node.name in answers]
    found = values[0] if values else None
    shape = found.shape if isinstance(found, torch.Tensor) else ()
    return tuple(shape) if all(isinstance(extent, int) for extent in shape) else ()
