"""ResNeXt, bottleneck residual units whose 3x3 convolution is grouped ("cardinality").

Xie, Girshick, Dollar, Tu, He, "Aggregated Residual Transformations for Deep Neural Networks",
CVPR 2017 (arXiv 1611.05431). With cardinality 1 and width 64 it is ResNet.
"""

from __future__ import annotations

import torch
from torch import nn

from shuffledeploy.model.errors import UsageError

#: Units of the four stages by number of layers (Table 1 of the paper; He et al. for 152).
STAGE_UNITS: dict[int, tuple[int, int, int, int]] = {
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

STEM_CHANNELS = 64
#: Output channels of the first stage; each later stage doubles them.
FIRST_STAGE_CHANNELS = 256


class ResNeXtUnit(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolution, added to the input.

    Parameters
    ----------
    in_channels, bottleneck, out_channels : int
        Widths of the input, of the 3x3 convolution, of the output.
    cardinality : int
        Groups of the 3x3 convolution.
    stride : int
        Stride of the 3x3 convolution and of the projection.
    """

    def __init__(
        self, in_channels: int, bottleneck: int, out_channels: int, cardinality: int, stride: int
    ) -> None:
        super().__init__()
        self.compress = nn.Conv2d(in_channels, bottleneck, 1, bias=False)
        self.compress_norm = nn.BatchNorm2d(bottleneck)
        self.grouped = nn.Conv2d(
            bottleneck, bottleneck, 3, stride, padding=1, groups=cardinality, bias=False
        )
        self.grouped_norm = nn.BatchNorm2d(bottleneck)
        self.expand = nn.Conv2d(bottleneck, out_channels, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(out_channels)
        self.projection: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.projection = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the branch."""
        return self.expand_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h', w')``."""
        branch = torch.relu(self.compress_norm(self.compress(x)))
        branch = torch.relu(self.grouped_norm(self.grouped(branch)))
        branch = self.expand_norm(self.expand(branch))
        return torch.relu(self.projection(x) + branch)


class ResNeXt(nn.Module):
    """The whole network; made by :func:`resnext`, which checks the arguments."""

    def __init__(self, layers: int, cardinality: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM_CHANNELS, 7, 2, padding=3, bias=False)
        self.stem_norm = nn.BatchNorm2d(STEM_CHANNELS)
        self.stem_pool = nn.MaxPool2d(3, 2, padding=1)
        channels, stages = STEM_CHANNELS, []
        for i, units in enumerate(STAGE_UNITS[layers]):
            bottleneck, out_channels = cardinality * width * 2**i, FIRST_STAGE_CHANNELS * 2**i
            stage = []
            for unit in range(units):
                stride = 2 if i > 0 and unit == 0 else 1
                stage.append(ResNeXtUnit(channels, bottleneck, out_channels, cardinality, stride))
                channels = out_channels
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(batch, 3, h, w)`` to logits ``(batch, num_classes)``."""
        x = self.stem_pool(torch.relu(self.stem_norm(self.stem(x))))
        return self.classifier(self.stages(x).mean((2, 3)))


def resnext(
    layers: int = 50, cardinality: int = 32, width: int = 4, num_classes: int = 1000
) -> nn.Module:
    """Build ResNeXt with PyTorch's initial weights, for images of any resolution.

    Parameters
    ----------
    layers : int
        50, 101 or 152.
    cardinality : int
        Groups of the 3x3 convolutions.
    width : int
        Channels of one group in the first stage: the "4d" of "32x4d".
    num_classes : int
        Logits.

    Returns
    -------
    nn.Module
        In training mode, as any new module.

    Raises
    ------
    UsageError
        A value out of range.
    """
    if layers not in STAGE_UNITS:
        known = ", ".join(map(str, STAGE_UNITS))
        raise UsageError(f"ResNeXt has no variant of {layers} layers: choose one of {known}")
    if cardinality < 1 or width < 1:
        raise UsageError(
            f"ResNeXt's cardinality and width start at 1, not {cardinality} and {width}"
        )
    return ResNeXt(layers, cardinality, width, num_classes)
