"""Networks drawn at random: convolutions and what may stand around them."""

from __future__ import annotations

import random

import torch
from torch import nn
from torch.nn import functional


class _Layer(nn.Module):
    """One drawn layer: a convolution and what stands around it."""

    def __init__(self, rng: random.Random, channels: int) -> None:
        super().__init__()
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        self.shuffle_groups = rng.choice(divisors)
        self.depthwise = rng.random() < 0.3
        groups = channels if self.depthwise else rng.choice(divisors)
        multiplier = rng.choice([1, 1, 2]) if self.depthwise else rng.randint(1, 5)
        self.out_channels = groups * multiplier
        kernel = (rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 3]))
        self.pad = [rng.randint(0, 1) for _ in range(4)] if rng.random() < 0.4 else []
        self.conv = nn.Conv2d(
            channels, self.out_channels, kernel, stride=rng.choice([1, 1, 1, 2]),
            padding=(kernel[0] // 2, kernel[1] // 2), dilation=rng.choice([1, 1, 2]),
            groups=groups, bias=rng.random() < 0.5,
        )  # fmt: skip
        self.norm = nn.BatchNorm2d(self.out_channels) if rng.random() < 0.5 else nn.Identity()
        self.activation = rng.choice(
            [nn.ReLU(), nn.ReLU6(), nn.Identity(), nn.Hardtanh(-0.5, 1.5), nn.SiLU()]
        )
        self.shuffle_after = rng.random() < 0.3
        self.residual = rng.random() < 0.5
        self.join = rng.choice(["", "", "concat", "split"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.shuffle_after:
            x = functional.channel_shuffle(x, self.shuffle_groups)
        y = self.norm(self.conv(functional.pad(x, self.pad) if self.pad else x))
        if self.residual and y.shape == x.shape:
            y = y + x
        y = self.activation(y)
        if self.shuffle_after:
            y = functional.channel_shuffle(y, y.shape[1])
        if self.join == "concat" and y.shape[2:] == x.shape[2:]:
            y = torch.relu(torch.cat([x, y], 1))
        elif self.join == "split" and y.shape[1] > 1:
            first, second = y.split([1, y.shape[1] - 1], 1)
            y = torch.cat([torch.sigmoid(second), first], 1)
        return y


class Drawn(nn.Module):
    """A stem, a few drawn layers with pools between, a classifier."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        channels = rng.choice([4, 6, 9, 10, 12])
        self.stem = nn.Conv2d(3, channels, 3, padding=rng.randint(0, 2))
        self.layers = nn.ModuleList()
        probe = torch.zeros(1, channels, 12, 11)
        for _ in range(rng.randint(2, 4)):
            layer = _Layer(rng, probe.shape[1]).eval()
            probe = layer(probe)
            self.layers.append(layer)
            if min(probe.shape[2:]) > 4 and rng.random() < 0.5:
                ceil, side = rng.random() < 0.5, rng.choice([2, 3])
                self.layers.append(
                    nn.MaxPool2d(side, 2, side // 2, ceil_mode=ceil)
                    if rng.random() < 0.5
                    else nn.AvgPool2d(side, 2, side // 2, ceil, rng.random() < 0.5)
                )
                probe = self.layers[-1](probe)
            if probe.shape[1] > 40:
                break
        self.pool = nn.AdaptiveAvgPool2d(rng.choice([1, 2, (1, 3)]))
        flat = self.pool(probe).flatten(1).shape[1]
        self.classifier = nn.Linear(flat, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.pool(x).flatten(1))
