"""AlexNet as published in 2012, the network ShuffleNet measures its speed against.

Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS 2012. Its second, fourth and fifth convolutions have two groups (it was cut over two GPUs):
724 M multiply-adds, against 1,135 M when these groups are forgotten, so the grouped one is the fair
and the faster baseline. Local response normalisation is left out, as in the comparisons that
later papers and engines make: it changes no weight and would only slow the baseline.
"""

from __future__ import annotations

import torch
from torch import nn

#: Side of the map that feeds the classifier.
CLASSIFIER_SIDE = 6

#: Below this side the third max pool has nothing left to pool.
SMALLEST_SIDE = 63


#: Channels of the five convolutions.
WIDTHS = (96, 256, 384, 384, 256)
#: Of "One weird trick", which has no groups.
UNGROUPED_WIDTHS = (64, 192, 384, 256, 256)


class AlexNet(nn.Module):
    """Five convolutions and three linear layers.

    Parameters
    ----------
    num_classes : int
        Logits.
    widths : tuple of int
        Channels of the convolutions.
    groups : int
        Of the second, fourth and fifth convolution.
    """

    def __init__(
        self, num_classes: int, widths: tuple[int, int, int, int, int] = WIDTHS, groups: int = 2
    ) -> None:
        super().__init__()
        first, second, third, fourth, fifth = widths
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(first, second, 5, padding=2, groups=groups),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(third, fourth, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(fourth, fifth, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        # Identity at 224x224; at other resolutions it keeps the classifier's size.
        self.pool = nn.AdaptiveAvgPool2d(CLASSIFIER_SIDE)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(fifth * CLASSIFIER_SIDE**2, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(batch, 3, h, w)`` to logits ``(batch, num_classes)``."""
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def alexnet(num_classes: int = 1000) -> nn.Module:
    """Build AlexNet with PyTorch's initial weights.

    Parameters
    ----------
    num_classes : int
        Logits.

    Returns
    -------
    nn.Module
        60,965,224 parameters at 1000 classes. Images are at least ``SMALLEST_SIDE`` a side.
    """
    return AlexNet(num_classes)


def ungrouped_alexnet(num_classes: int = 1000) -> nn.Module:
    """Build AlexNet without groups, with PyTorch's initial weights: torchvision's.

    Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv 1404.5997.

    Parameters
    ----------
    num_classes : int
        Logits.

    Returns
    -------
    nn.Module
        61,100,840 parameters at 1000 classes. Images are at least ``SMALLEST_SIDE`` a side.
    """
    return AlexNet(num_classes, UNGROUPED_WIDTHS, groups=1)
