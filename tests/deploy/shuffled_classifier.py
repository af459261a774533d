"""A small network of all that the zoo's are made of, for bundles in other precisions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Classifier(nn.Module):
    """A stem, a unit with a shuffle and a residual, a join, and a classifier of long sums."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.compress = nn.Conv2d(3, 24, 3, 2, 1), nn.Conv2d(24, 48, 1, groups=3)
        self.depthwise = nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.expand, self.wide = nn.Conv2d(48, 24, 1, groups=3), nn.Conv2d(48, 512, 1)
        self.classifier = nn.Linear(512, 20)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        y = functional.channel_shuffle(torch.relu(self.compress(x)), 3)
        y = torch.relu(self.expand(self.depthwise(y)) + x)
        y = torch.cat([functional.avg_pool2d(y, 3, 2, 1), functional.max_pool2d(y, 3, 2, 1)], 1)
        return self.classifier(torch.relu(self.wide(y)).mean((2, 3)))
