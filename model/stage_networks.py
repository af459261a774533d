"""The other units of the ShuffleNet paper's section 4.2, in stages as ShuffleNet's.

The paper puts them in the place of the shuffle units of stages 2 to 4 and "adapts the number of
channels to ensure the complexity remains unchanged" (Table 4). Its fourth unit, "Xception-like", is
the shuffle unit of one group. It does not print the channels: those here are found from its
complexities. A unit of stride 2 projects its input by a pointwise convolution, as in ResNet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from shuffledeploy.model.resnext import ResNeXtUnit
from shuffledeploy.model.shufflenet import STAGE_UNITS

#: Makes a unit of so many input and output channels and such a stride.
MakeUnit: TypeAlias = Callable[[int, int, int], nn.Module]

#: Of a unit's output channels; "as suggested in [ResNeXt]" and "same as [ResNet]".
RESNET_RATIO = 4
RESNEXT_RATIO = 2
RESNEXT_CARDINALITY = 16


class PlainUnit(nn.Module):
    """Two 3x3 convolutions in a row, as in VGG, each with a batch norm; the paper's "VGG-like".

    Parameters
    ----------
    in_channels, out_channels : int
        Widths.
    stride : int
        Of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h', w')``."""
        x = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(x)))


def resnet_unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Make ResNet's bottleneck unit, 1:4."""
    return ResNeXtUnit(in_channels, out_channels // RESNET_RATIO, out_channels, 1, stride)


def resnext_unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Make ResNeXt's unit of cardinality 16, 1:2."""
    bottleneck = out_channels // RESNEXT_RATIO
    return ResNeXtUnit(in_channels, bottleneck, out_channels, RESNEXT_CARDINALITY, stride)


class StageNetwork(nn.Module):
    """ShuffleNet's frame about other units.

    Parameters
    ----------
    make_unit : Callable
        Makes a unit.
    stem_channels, first_width : int
        Widths of the first convolution and of stage 2; each later stage doubles the latter.
    num_classes, in_channels : int
        Logits, and channels of the image.
    has_pool : bool
        Whether a max pool follows the first convolution.
    stage_units : tuple of int
        How many units each stage has.
    """

    def __init__(
        self,
        make_unit: MakeUnit,
        stem_channels: int,
        first_width: int,
        num_classes: int,
        in_channels: int = 3,
        has_pool: bool = True,
        stage_units: tuple[int, ...] = STAGE_UNITS,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, stem_channels, 3, 2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem_channels)
        self.stem_pool = nn.MaxPool2d(3, 2, padding=1) if has_pool else nn.Identity()
        channels, stages = stem_channels, []
        for i, units in enumerate(stage_units):
            width, stage = first_width * 2**i, []
            for unit in range(units):
                stage.append(make_unit(channels, width, 2 if unit == 0 else 1))
                channels = width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(batch, in_channels, h, w)`` to logits ``(batch, num_classes)``."""
        x = self.stem_pool(torch.relu(self.stem_norm(self.stem(x))))
        return self.classifier(self.stages(x).mean((2, 3)))
