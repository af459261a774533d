"""Small networks that nobody here wrote answer as PyTorch does; `make networks` runs them all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from package_networks import package_networks
from telling_weights import telling

import shuffledeploy

SMALL = (
    "shufflenet_g3_wd4 shufflenetv2_wd2 menet108_8x1_g3 dicenet_wd5 igcv3_wd4 mobilenet_wd4"
    " mobilenetv3_small_w1 squeezenet_v1_1 peleenet lcnet_050 mobilenetv4_conv_small"
    " edgenext_xx_small"
).split()


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_answers_as_pytorch(name: str, tmp_path: Path) -> None:
    (network,) = (network for network in package_networks() if network.name == name)
    if not network.is_installed:
        pytest.skip(f"{network.package} is not installed: make networks installs it")
    torch.manual_seed(0)
    picture = torch.zeros(1, 3, network.size, network.size)
    module = telling(network.make(), picture.expand(4, -1, -1, -1))
    bundle = shuffledeploy.compile(module, (picture,), "host", output=tmp_path / "bundle")
    parity = shuffledeploy.check_parity(bundle)
    assert parity.passed, parity.verdict
