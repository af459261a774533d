"""Random weights by which a wrong compilation shows."""

from __future__ import annotations

import math

import torch
from torch import nn


def randomise(module: nn.Module, shape: tuple[int, int, int, int], seed: int) -> nn.Module:
    """Give every layer random weights that neither die out nor explode with depth."""
    generator = torch.Generator().manual_seed(seed)
    last = None
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.uniform_(0.7, 1.3, generator=generator)
            layer.bias.normal_(0, 0.1, generator=generator)
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.7, 1.4, generator=generator)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            # Variance 2 / fan-in keeps the signal's power through the ReLU that follows.
            fan_in = layer.weight[0].numel()
            layer.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            if layer.bias is not None:
                layer.bias.normal_(0, 0.1, generator=generator)
            last = layer if isinstance(layer, nn.Linear) else last
    assert last is not None, "every network here ends in a linear layer"
    spread = module(torch.randn((2, *shape[1:]), generator=generator)).std(dim=1).mean().item()
    # A power of two is exact, and the same on machines whose sums round differently.
    last.weight.mul_(2.0 ** -round(math.log2(spread)))
    return module
