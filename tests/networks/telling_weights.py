"""Weights that show what is wrong: none that a network was begun with is all ones or all zeros."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def telling(network: nn.Module, *pictures: torch.Tensor, seed: int = 0) -> nn.Module:
    """Draw what a new network has of constants: scales, shifts, running means and variances.

    Weights of convolutions and products stay as they were drawn. Of pictures, the running means and
    variances are the pictures' own, as in a trained network: else values grow from layer to layer,
    and float32 rounds the answer of a deep one away.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.parameters():
            if (
                tensor.is_floating_point()
                and tensor.numel()
                and bool((tensor == tensor.flatten()[0]).all())
            ):
                tensor.add_(_drawn(tensor, -0.3, 0.3, generator))
        norms = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
        for layer in norms:
            if layer.running_mean is not None and layer.running_var is not None:
                layer.running_mean.copy_(_drawn(layer.running_mean, -0.3, 0.3, generator))
                layer.running_var.copy_(_drawn(layer.running_var, 0.5, 1.5, generator))
                layer.momentum = 1.0
        for picture in pictures:
            network.train()(torch.randn(picture.shape, generator=generator))
    return network.eval()


def _drawn(like: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    drawn = torch.rand(like.shape, generator=generator) * (high - low) + low
    return drawn.to(like.dtype)
