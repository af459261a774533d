"""The same network with smaller numbers inside, for engines in half: that ends at 65,504."""

from __future__ import annotations

import copy

import torch
from torch import nn


def kept_small(network: nn.Module, scale: float) -> nn.Module:
    """Give a network that answers the same, but whose numbers inside are a part of what they were.

    What the first convolution gives is scaled, and with it all that follows up to the last linear
    layer, whose weights make up for it.

    Parameters
    ----------
    network : nn.Module
        Of convolutions, batch norms, linear layers, pools, sums and ReLU: a positive factor passes
        through all of them. Its layers are defined in the order in which they are called.
    scale : float
        A power of two: nothing is rounded.
    """
    scaled = copy.deepcopy(network)
    layers = [m for m in scaled.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for norm in scaled.modules():
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                norm.running_mean *= scale
                norm.bias *= scale
        for layer in layers[:-1]:
            if layer.bias is not None:
                layer.bias *= scale
        layers[0].weight *= scale
        layers[-1].weight /= scale
    return scaled
