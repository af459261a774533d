"""Random weights by which a wrong compilation shows."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import nn

#: What the last batch norm of a branch is multiplied with. No ReLU follows the branch's last
#: convolutions, so it has up to twice the spread of what it is added to: with a quarter of that, a
#: sum of 16 units stays of the order of its first. A power of two is exact.
BRANCH_PART = 0.25


@runtime_checkable
class BranchedUnit(Protocol):
    """A unit whose branch is added to, or joined with, what goes past it."""

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the branch."""
        ...


def randomise(module: nn.Module, shape: tuple[int, int, int, int], seed: int) -> nn.Module:
    """Give every layer random weights with which numbers stay like a trained network's.

    Numbers neither die out nor grow with depth: convolutions keep the signal's power, and branches
    of units are damped by :data:`BRANCH_PART`, as training damps them. On standard normal images no
    number inside a network of the registry is beyond 64, so that precisions of fewer bits hold it.

    Parameters
    ----------
    module : nn.Module
        It ends in a linear layer, whose answer is made of order one. In eval mode, without
        gradients. Units that are a :class:`BranchedUnit` are damped.
    shape : tuple of int
        Of its input, NCHW.
    seed : int
        Same seed, same weights.

    Returns
    -------
    nn.Module
        The same one.
    """
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
    for unit in module.modules():
        if isinstance(unit, BranchedUnit):
            unit.last_norm.weight.mul_(BRANCH_PART)
    assert last is not None, "every network here ends in a linear layer"
    spread = module(torch.randn((2, *shape[1:]), generator=generator)).std(dim=1).mean().item()
    # A power of two is exact, and the same on machines whose sums round differently.
    last.weight.mul_(2.0 ** -round(math.log2(spread)))
    return module
