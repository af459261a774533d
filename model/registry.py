"""Networks by name: how to build one, what it eats, how its images are normalised."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from shuffledeploy.model.ablation_networks import ABLATIONS
from shuffledeploy.model.alexnet import SMALLEST_SIDE, alexnet, ungrouped_alexnet
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.fashion_data import CLASSES, FASHION, SIDE
from shuffledeploy.model.mobilenet import mobilenet
from shuffledeploy.model.random_weights import randomise
from shuffledeploy.model.resnext import resnext
from shuffledeploy.model.shufflenet import (
    STAGE_CHANNELS,
    STEM_CHANNELS,
    is_constructible,
    shufflenet,
)
from shuffledeploy.model.weights import load_weights

FASHION_CHECKPOINT = Path(__file__).parent / "checkpoints" / "shufflenet-fashion.pt"

#: The networks of the paper's Table 8, ResNeXt and the trained one: what comparisons show.
REPRESENTATIVE = (
    "shufflenet-g3-x0.5",
    "shufflenet-g3-x1",
    "shufflenet-g3-x2",
    "mobilenet-x1.0",
    "alexnet",
    "resnext50-32x4d",
    FASHION,
)

LARGEST_SIDE = 4096

#: What ends the name of a ShuffleNet's twin without channel shuffles, see :func:`twin`.
UNSHUFFLED = "-unshuffled"


@dataclass(frozen=True)
class Normalisation:
    """What is done to the pixels before the network sees them: ``(x / 255 - mean) / std``.

    Attributes
    ----------
    mean, std : tuple of float
        One for each channel, of pixels in [0, 1]; three channels are red, green, blue.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return len(self.mean)


#: The usual statistics of ImageNet's training set.
IMAGENET_NORMALISATION = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Those of Fashion-MNIST's.
FASHION_NORMALISATION = Normalisation((0.286,), (0.353,))


@dataclass(frozen=True)
class _Entry:
    """How to make one network, and what it takes."""

    construct: Callable[[int], nn.Module]
    num_classes: int = 1000
    side: int = 224
    smallest_side: int = 1
    normalisation: Normalisation = IMAGENET_NORMALISATION
    labels: tuple[str, ...] = ()


def _shufflenet_entry(groups: int, scale: float, shuffle: bool = True) -> _Entry:
    return _Entry(lambda num_classes: shufflenet(groups, scale, num_classes, shuffle=shuffle))


def _mobilenet_entry(alpha: float) -> _Entry:
    return _Entry(lambda num_classes: mobilenet(alpha, num_classes))


def fashion_network(num_classes: int = 10) -> nn.Module:
    """Build the untrained network of :mod:`model.fashion`: ShuffleNet 0.25x g3, small stem."""
    return shufflenet(3, 0.25, num_classes, in_channels=1, stem_stride=2)


def _entries() -> dict[str, _Entry]:
    entries = {
        f"shufflenet-g{groups}-x{scale:g}": _shufflenet_entry(groups, scale)
        for groups in STAGE_CHANNELS
        for scale in STEM_CHANNELS
        if is_constructible(groups, scale)
    }
    entries["alexnet"] = _Entry(alexnet, smallest_side=SMALLEST_SIDE)
    entries["alexnet-ungrouped"] = _Entry(ungrouped_alexnet, smallest_side=SMALLEST_SIDE)
    for alpha in (1.0, 0.75, 0.5, 0.25):
        entries[f"mobilenet-x{alpha}"] = _mobilenet_entry(alpha)
    entries["resnext50-32x4d"] = _Entry(lambda num_classes: resnext(50, 32, 4, num_classes))
    entries[FASHION] = _Entry(
        fashion_network, 10, 28, normalisation=FASHION_NORMALISATION, labels=CLASSES
    )
    return entries


def _twins() -> dict[str, _Entry]:
    return {
        f"shufflenet-g{groups}-x{scale:g}{UNSHUFFLED}": _shufflenet_entry(groups, scale, False)
        for groups in STAGE_CHANNELS
        for scale in STEM_CHANNELS
        if groups > 1 and is_constructible(groups, scale)
    }


def _ablations() -> dict[str, _Entry]:
    return {
        one.name: _Entry(one.construct, 10, SIDE, SIDE, FASHION_NORMALISATION, CLASSES)
        for one in ABLATIONS
    }


_ENTRIES = _entries()
#: Networks that stand in no list: they are there to be compared with one another.
_UNLISTED = _twins() | _ablations()


def names() -> list[str]:
    """List the networks that :func:`build` can make.

    Left out are the twins of :func:`twin` and the networks of `model.ablation_networks`.
    """
    return list(_ENTRIES)


def twin(name: str) -> str | None:
    """Name the network's twin without channel shuffles; None where it has no shuffle.

    The twin has the same layers, and from the same seed the same weights but for the scale of the
    classifier's: what the two take differs by the shuffles alone.
    """
    return name + UNSHUFFLED if name + UNSHUFFLED in _UNLISTED else None


def zoo() -> list[str]:
    """List the few networks that stand for all: the paper's comparison and the trained one."""
    return list(REPRESENTATIVE)


def _entry(name: str) -> _Entry:
    if name in _ENTRIES:
        return _ENTRIES[name]
    if name in _UNLISTED:
        return _UNLISTED[name]
    close = difflib.get_close_matches(name.lower(), _ENTRIES, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"one of {', '.join(zoo())}..."
    unbuildable = re.fullmatch(r"shufflenet-g(\d+)-x(\d+(?:\.\d+)?)", name)
    if unbuildable:  # well-formed, so the reason is in the arithmetic: let it say so
        try:
            shufflenet(int(unbuildable[1]), float(unbuildable[2]))
        except UsageError as error:
            raise UsageError(f"unknown network {name!r}: {error}; {hint}") from None
    raise UsageError(f"unknown network {name!r}: {hint}")


def construct(name: str, num_classes: int | None = None) -> nn.Module:
    """Build a network in eval mode, without gradients, with whatever weights PyTorch gives it.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    num_classes : int, optional
        Logits; by default 1000, or 10 for ``shufflenet-fashion``.

    Returns
    -------
    nn.Module
        Cheap under ``torch.device("meta")``: for counting, where weights do not matter.

    Raises
    ------
    UsageError
        The name is unknown (the message has close matches), or a class count below 1.
    """
    entry = _entry(name)
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"{name} needs at least one class, not {num_classes}")
    module = entry.construct(entry.num_classes if num_classes is None else num_classes)
    return module.eval().requires_grad_(False)


def build(name: str, *, seed: int = 0, num_classes: int | None = None) -> nn.Module:
    """Build a network in eval mode, ready to compile.

    ``shufflenet-fashion`` has trained weights. The others have seeded random ones, made so that
    a wrong compilation shows: no batch norm is trivial, and logits are of order one (their
    standard deviation over classes lies between 0.3 and 3 for standard normal images).

    Parameters
    ----------
    name : str
        One of :func:`names`.
    seed : int
        Of the random weights; trained ones do not depend on it.
    num_classes : int, optional
        Logits; by default 1000, or 10 for ``shufflenet-fashion``.

    Returns
    -------
    nn.Module
        Parameters and buffers are float32, on the CPU, without gradients.

    Raises
    ------
    UsageError
        The name is unknown, or the class count does not fit the trained weights.
    """
    module = construct(name, num_classes)
    if name != FASHION:
        return randomise(module, input_shape(name), seed)
    if num_classes not in (None, _ENTRIES[FASHION].num_classes):
        raise UsageError(f"{FASHION} is trained for 10 classes, not {num_classes}")
    load_weights(module, FASHION_CHECKPOINT)
    return module


def input_shape(name: str, resolution: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
    """Give the shape of one image, NCHW.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    resolution : tuple of int, optional
        Height and width, in pixels; by default the network's own, 224x224 or 28x28.

    Returns
    -------
    tuple of int
        ``(1, channels, height, width)``.

    Raises
    ------
    UsageError
        The name is unknown, or the resolution too small for the network or beyond reason.
    """
    entry = _entry(name)
    height, width = resolution or (entry.side, entry.side)
    if not entry.smallest_side <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise UsageError(
            f"{name} takes images from {entry.smallest_side} to {LARGEST_SIDE} pixels a side, "
            f"not {height}x{width}"
        )
    return 1, entry.normalisation.channels, height, width


def normalisation(name: str) -> Normalisation:
    """Give how the network's images are normalised.

    Raises
    ------
    UsageError
        The name is unknown.
    """
    return _entry(name).normalisation


def labels(name: str) -> tuple[str, ...]:
    """Name the classes of a network that was trained; empty for one that was not.

    Raises
    ------
    UsageError
        The name is unknown.
    """
    return _entry(name).labels
