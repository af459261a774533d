"""MobileNet V1: depthwise separable convolutions, a width and a resolution multiplier.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications", arXiv 1704.04861. A depthwise ``k x k`` and a pointwise convolution cost
``1/N + 1/k^2`` of the standard convolution of ``N`` output channels they replace.
"""

from __future__ import annotations

import torch
from torch import nn

from shuffledeploy.model.errors import UsageError

#: Table 1 of the paper: output channels of the first convolution, then (channels, stride) of the
#: thirteen separable blocks. (The last block's stride is 1: "s2" there is a known misprint.)
STEM_CHANNELS = 32
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)

#: Side of the images at resolution multiplier 1.
FULL_RESOLUTION = 224


def convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Build convolution, batch norm and ReLU; "same" padding."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class MobileNet(nn.Module):
    """The whole network; made by :func:`mobilenet`, which checks the arguments."""

    def __init__(self, alpha: float, num_classes: int) -> None:
        super().__init__()
        channels = int(STEM_CHANNELS * alpha)
        self.stem = convolution(3, channels, 3, stride=2)
        blocks: list[nn.Module] = []
        for width, stride in BLOCKS:
            out_channels = int(width * alpha)
            depthwise = convolution(channels, channels, 3, stride, groups=channels)
            blocks.append(nn.Sequential(depthwise, convolution(channels, out_channels, 1)))
            channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(batch, 3, h, w)`` to logits ``(batch, num_classes)``."""
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))


def mobilenet(alpha: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """Build MobileNet V1 with PyTorch's initial weights, for images of any resolution.

    Parameters
    ----------
    alpha : float
        Width multiplier, in (0, 1]. The paper's are 1, 0.75, 0.5 and 0.25.
    num_classes : int
        Logits.

    Returns
    -------
    nn.Module
        In training mode, as any new module. The resolution multiplier is no part of it: see
        :func:`scaled_resolution`.

    Raises
    ------
    UsageError
        ``alpha`` out of range.
    """
    if not 1 / STEM_CHANNELS <= alpha <= 1:
        raise UsageError(f"MobileNet's width multiplier alpha lies in (0, 1], not {alpha:g}")
    return MobileNet(alpha, num_classes)


def scaled_resolution(rho: float) -> int:
    """Give the side of the images at resolution multiplier ``rho`` (224 at 1, 160 at 0.714).

    Parameters
    ----------
    rho : float
        Resolution multiplier, in (0, 1].

    Returns
    -------
    int
        Pixels, to the multiple of 32 that is nearest: the network shrinks its input 32 times.

    Raises
    ------
    UsageError
        ``rho`` out of range.
    """
    if not 0 < rho <= 1:
        raise UsageError(f"MobileNet's resolution multiplier rho lies in (0, 1], not {rho:g}")
    return max(32, round(FULL_RESOLUTION * rho / 32) * 32)
