"""Networks whose numbers are kept small answer as they did."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shuffledeploy.model.kept_small import kept_small
from shuffledeploy.model.registry import build


@pytest.mark.parametrize("name", ["shufflenet-g3-x0.25", "mobilenet-x0.25"])
def test_answers_stay_and_numbers_shrink(name: str) -> None:
    network = build(name)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    small = kept_small(network, 2.0**-4)
    inside: list[list[float]] = []
    for each in (network, small):
        reached: list[float] = []
        inside.append(reached)
        for layer in each.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(
                    lambda _, __, y, into=reached: into.append(float(y.abs().max()))
                )
    with torch.no_grad():
        torch.testing.assert_close(small(image), network(image))
    assert inside[1] == pytest.approx([value / 16 for value in inside[0]], rel=1e-3)
