"""The paper's ablations in small: networks for Fashion-MNIST that differ in one thing each.

All but AlexNet's counterpart have the frame of the paper's shallow ShuffleNet (26 layers: half of
the units of each stage) for images of 28x28, and the same complexity: 0.72 to 0.81 M multiply-adds
in convolutions. As in the paper, more groups buy wider layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from shuffledeploy.model.shufflenet import ShuffleNet
from shuffledeploy.model.stage_networks import (
    RESNEXT_CARDINALITY,
    MakeUnit,
    PlainUnit,
    StageNetwork,
    resnet_unit,
    resnext_unit,
)

#: Units of stages 2, 3, 4: half of ShuffleNet's.
SHALLOW_UNITS = (2, 4, 2)
STEM_CHANNELS = 24
#: Channels of stage 2 by groups; each later stage doubles them.
WIDTHS = {1: 52, 2: 72, 3: 84, 4: 96, 8: 128}

BATCH_NORM_LEARNING_RATE = 0.1
#: Without batch norms a network diverges at more.
PLAIN_LEARNING_RATE = 0.03


@dataclass(frozen=True)
class Ablation:
    """One network of the ablations.

    Attributes
    ----------
    name : str
        In the registry.
    unit : str
        What it is built of, for people.
    groups : int
        Of its pointwise convolutions; of ResNeXt its cardinality.
    shuffles : bool
        Whether channels are shuffled between groups.
    construct : Callable
        Makes it for so many classes.
    learning_rate : float
        The highest of its training.
    """

    name: str
    unit: str
    groups: int
    shuffles: bool
    construct: Callable[[int], nn.Module]
    learning_rate: float = BATCH_NORM_LEARNING_RATE


class SmallAlexNet(nn.Module):
    """AlexNet's counterpart for 28x28: a quarter of its channels, its groups, first layer 5x5.

    Parameters
    ----------
    num_classes : int
        Logits.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(24, 64, 5, padding=2, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 96, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(96, 96, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(96, 64, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(64 * 2 * 2, 1024),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(1024, 1024),
            nn.ReLU(),
            nn.Linear(1024, num_classes),
        )
        # PyTorch's own initial weights let a signal die in so many layers without batch norms.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(batch, 1, 28, 28)`` to logits ``(batch, num_classes)``."""
        return self.classifier(torch.flatten(self.features(x), 1))


def _grouped(groups: int, shuffle: bool) -> Ablation:
    widths = tuple(WIDTHS[groups] * 2**i for i in range(3))

    def construct(num_classes: int) -> nn.Module:
        return ShuffleNet(
            groups, STEM_CHANNELS, widths, num_classes, 1, 2, shuffle, stage_units=SHALLOW_UNITS
        )

    name = f"fashion-g{groups}" + ("" if shuffle else "-unshuffled")
    return Ablation(name, "ShuffleNet", groups, shuffle and groups > 1, construct)


def _other(name: str, unit: str, make_unit: MakeUnit, width: int, groups: int = 1) -> Ablation:
    def construct(num_classes: int) -> nn.Module:
        return StageNetwork(make_unit, STEM_CHANNELS, width, num_classes, 1, False, SHALLOW_UNITS)

    return Ablation(name, unit, groups, False, construct)


#: In the order of the tables.
ABLATIONS: tuple[Ablation, ...] = (
    *(_grouped(groups, True) for groups in WIDTHS),
    *(_grouped(groups, False) for groups in WIDTHS if groups > 1),
    _other("fashion-vgg-like", "VGG-like", PlainUnit, 9),
    _other("fashion-resnet", "ResNet", resnet_unit, 32),
    _other("fashion-resnext", "ResNeXt", resnext_unit, 32, RESNEXT_CARDINALITY),
    Ablation("fashion-alexnet", "AlexNet", 2, False, SmallAlexNet, PLAIN_LEARNING_RATE),
)
