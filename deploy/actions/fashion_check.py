"""Accuracy of the compiled network on real images, beside PyTorch."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.table import Table

from shuffledeploy.compiler.bundle.folder import Bundle, load_bundle
from shuffledeploy.compiler.ir.memory_layout import INT8
from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.deploy.runtime.comparison import Tell, cached_bundle
from shuffledeploy.deploy.runtime.defaults import allowed_disagreements
from shuffledeploy.deploy.runtime.device_fit import default_device
from shuffledeploy.deploy.runtime.execution import RunningNetwork, open_network
from shuffledeploy.model.command_output import steps, write_json
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.fashion import to_input
from shuffledeploy.model.fashion_data import CLASSES, FASHION, Split, fetch, read_split
from shuffledeploy.model.plain_console import plain_console
from shuffledeploy.model.registry import build

#: Images of the training set from which a network in int8 learns how large its numbers get.
CALIBRATION = 400


def check_accuracy(options: argparse.Namespace) -> int:
    """Do what the command was asked for; return its exit status."""
    split = first_images(read_split("test", fetch()), options.images)
    with steps("starting", options.images) as tell:
        if options.bundle is not None:
            bundle = load_bundle(options.bundle)
            if bundle.manifest.network != FASHION:
                raise UsageError(f"{options.bundle} holds {bundle.manifest.network}, not {FASHION}")
        else:
            target = find_target(options.target).computing_in(options.precision)
            bundle = fashion_bundle(target, tell)
        device = options.device or default_device(bundle.manifest)
        tell(f"images through {device}")
        with open_network(bundle, device) as network:
            accuracy = measure_accuracy(network, split, lambda: tell(None))
    print_accuracy(accuracy)
    if options.json is not None:
        write_json(options.json, to_json(accuracy))
    allowed = options.allowed
    if allowed is None:
        allowed = allowed_disagreements(bundle.manifest.precision, accuracy.images)
    if len(accuracy.disagreements) > allowed:
        raise Failure(
            f"{len(accuracy.disagreements)} of {accuracy.images} images are named differently from"
            f" PyTorch: at most {allowed} may be"
        )
    return 0


def fashion_bundle(target: CompileTarget, tell: Tell) -> Bundle:
    """Compile the trained network; in int8 it learns from images of the training set.

    Raises
    ------
    Failure
        If these cannot be had.
    """
    calibration = []
    if target.precision == INT8:
        learned = first_images(read_split("train", fetch()), CALIBRATION)
        calibration = [[one[np.newaxis]] for one in to_input(learned.images).numpy()]
    return cached_bundle(FASHION, None, target, calibration=calibration, tell=tell)


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """An image that a device and PyTorch name differently.

    Attributes
    ----------
    image : int
        Index among the test images.
    label, device, pytorch : str
        The true class, and what either said.
    margin : float
        Between PyTorch's two largest logits: near zero, it is a tie that rounding breaks.
    """

    image: int
    label: str
    device: str
    pytorch: str
    margin: float


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Top-1 of a device and of PyTorch on the same images.

    Attributes
    ----------
    device_name : str
        Where the compiled network ran.
    images : int
        How many, the first ones of the test set.
    device, pytorch : float
        Share of right answers.
    disagreements : tuple of Disagreement
        All of them.
    """

    device_name: str
    images: int
    device: float
    pytorch: float
    disagreements: tuple[Disagreement, ...]


def measure_accuracy(
    network: RunningNetwork, split: Split, progress: Callable[[], None] = lambda: None
) -> Accuracy:
    """Classify images on a device and by PyTorch.

    Parameters
    ----------
    network : RunningNetwork
        ``shufflenet-fashion``, loaded.
    split : Split
        Images and labels.
    progress : Callable
        Called after each image.
    """
    inputs = to_input(split.images)
    with torch.no_grad():
        module = build(FASHION)
        wanted = torch.cat([module(batch) for batch in inputs.split(500)]).numpy()
    answers = np.empty(len(inputs), np.int64)
    for i, image in enumerate(inputs.numpy()):
        answers[i] = network.run([image[np.newaxis]])[0].argmax()
        progress()
    right = wanted.argmax(1)
    ranked = np.sort(wanted, axis=1)
    return Accuracy(
        network.device.name, len(inputs), float(np.mean(answers == split.labels)),
        float(np.mean(right == split.labels)),
        tuple(
            Disagreement(
                int(i), CLASSES[split.labels[i]], CLASSES[answers[i]], CLASSES[right[i]],
                float(ranked[i, -1] - ranked[i, -2]),
            )
            for i in np.flatnonzero(answers != right)
        ),
    )  # fmt: skip


def first_images(split: Split, count: int) -> Split:
    """Give the first images of a split.

    Raises
    ------
    UsageError
        If it has fewer.
    """
    if not 1 <= count <= len(split.labels):
        raise UsageError(f"--images takes 1 to {len(split.labels)}, not {count}")
    return Split(split.images[:count], split.labels[:count])


def to_json(accuracy: Accuracy) -> dict[str, Any]:
    """Give everything for a JSON file, its kind included."""
    return {"network": FASHION, "kind": "measured", **dataclasses.asdict(accuracy)}


def print_accuracy(accuracy: Accuracy) -> None:
    """Print both accuracies and each disagreement, readable at 80 columns."""
    console = plain_console()
    console.print(
        f"top-1 of {accuracy.images:,} Fashion-MNIST test images: {accuracy.device:.2%} on"
        f" {accuracy.device_name}, {accuracy.pytorch:.2%} by PyTorch,"
        f" {len(accuracy.disagreements)} disagreements"
    )
    if accuracy.disagreements:
        table = Table("image", "label", "device", "PyTorch", "PyTorch's margin", box=None)
        for one in accuracy.disagreements:
            table.add_row(str(one.image), one.label, one.device, one.pytorch, f"{one.margin:.1e}")
        console.print(table)
