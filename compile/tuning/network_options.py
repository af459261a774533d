"""Which network `tune.py` compiles: its options, and what they name read."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from shuffledeploy.model.errors import UsageError

if TYPE_CHECKING:
    from shuffledeploy.model.foreign.checkpoint import Checkpoint
    from shuffledeploy.model.registry import Normalisation

DEFAULT_NETWORK = "shufflenet-g3-x0.5"


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Describe the options of a command line that name a network, its pictures and classes."""
    network = parser.add_mutually_exclusive_group()
    network.add_argument(
        "--model", nargs="+", metavar="NAME",
        help="networks of the zoo, or all (default: that of --weights, else"
        f" {DEFAULT_NETWORK})",
    )  # fmt: skip
    network.add_argument(
        "--program", type=Path, metavar="FILE.pt2",
        help="any network: a program saved by torch.export.save",
    )  # fmt: skip
    add = parser.add_argument
    add("--resolution", metavar="HxW", help="input size of a zoo network (default: its own)")
    add("--batch", type=int, metavar="N", help="images that it takes at once (default: 1)")
    add("--weights", type=Path, metavar="FILE",
        help="a checkpoint of a zoo network, under the names of this project, megvii, mmpretrain,"
        " pytorchcv, timm or torchvision")  # fmt: skip
    add("--mean", type=float, nargs="+", metavar="M",
        help="of each channel, in 0 to 1 (default: the zoo's or the publisher's)")  # fmt: skip
    add("--std", type=float, nargs="+", metavar="S", help="standard deviations of the same")
    add("--labels", type=Path, metavar="FILE",
        help="names of the classes, one a line: run.py --input shows them")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class NetworkFiles:
    """What the options brought along beside a name or a program.

    Attributes
    ----------
    weights : Checkpoint or None
        Of the network of the zoo.
    normalisation : Normalisation or None
        Of images, where the options tell it.
    labels : tuple of str
        Names of the classes, where the options tell them.
    """

    weights: Checkpoint | None
    normalisation: Normalisation | None
    labels: tuple[str, ...]


def read_network_files(options: argparse.Namespace) -> NetworkFiles:
    """Read what the options name; weights tell the network where none is named.

    Raises
    ------
    UsageError
        A file is not what it should be, or the options contradict each other.
    """
    if options.program and (options.resolution or options.weights or options.batch):
        raise UsageError("--program brings its own shape and weights:"
                         " leave out --resolution, --batch and --weights")  # fmt: skip
    weights = _weights(options)
    if not options.program:
        options.model = weights.network if weights else options.model or DEFAULT_NETWORK
    if not options.labels and options.mean is None and options.std is None:
        return NetworkFiles(weights, None, ())
    from shuffledeploy.model.picture_facts import normalisation_of, read_labels

    labels = read_labels(options.labels) if options.labels else ()
    return NetworkFiles(weights, normalisation_of(options.mean, options.std), labels)


def _weights(options: argparse.Namespace) -> Checkpoint | None:
    if options.weights is None:
        return None
    from shuffledeploy.model.foreign.checkpoint import read_checkpoint

    return read_checkpoint(options.weights, options.model)
