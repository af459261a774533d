"""Int8 of the four families of networks on an emulated core without dot products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shuffledeploy
from shuffledeploy.compiler.bundle.folder import sample
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.parity import check_parity
from shuffledeploy.model.alexnet import AlexNet
from shuffledeploy.model.mobilenet import convolution
from shuffledeploy.model.random_weights import randomise
from shuffledeploy.model.resnext import ResNeXtUnit
from shuffledeploy.model.shufflenet import ShuffleUnit

pytestmark = pytest.mark.long

SHAPE = (1, 3, 32, 40)
STEM, WIDTH, CLASSES = 24, 48, 10


class _Families(nn.Module):
    """Some units of each family behind one stem: the logits of all, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 3, 2, 1)
        self.shufflenet = nn.Sequential(
            ShuffleUnit(STEM, WIDTH, 3, 2, False), ShuffleUnit(WIDTH, WIDTH, 3, 1, True)
        )
        self.mobilenet = nn.Sequential(
            convolution(STEM, STEM, 3, 2, groups=STEM),
            convolution(STEM, WIDTH, 1),
            convolution(WIDTH, WIDTH, 3, groups=WIDTH),
            convolution(WIDTH, WIDTH, 1),
        )
        self.resnext = nn.Sequential(
            ResNeXtUnit(STEM, 32, WIDTH, 4, 2), ResNeXtUnit(WIDTH, 32, WIDTH, 4, 1)
        )
        # Behind its first convolution: a pool, windows of 5x5 and 3x3, groups.
        self.alexnet = AlexNet(CLASSES, (STEM, 32, WIDTH, 32, WIDTH)).features[2:]
        self.classifiers = nn.ModuleList(nn.Linear(WIDTH, CLASSES) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        families = (self.shufflenet, self.mobilenet, self.resnext, self.alexnet)
        means = [units(x).mean((2, 3)) for units in families]
        logits = [linear(m) for linear, m in zip(self.classifiers, means, strict=True)]
        return torch.cat(logits, dim=1)


@pytest.mark.emulated
def test_each_family_holds_parity(tmp_path: Path, board_built: None) -> None:
    with torch.no_grad():
        network = randomise(_Families().eval(), SHAPE, seed=5)
    drawn = np.random.default_rng(9).normal(size=(16, *SHAPE[1:])).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", drawn)
    bundle = shuffledeploy.compile(
        network, (torch.zeros(SHAPE),), "cortex-a72", output=tmp_path / "bundle", name="families",
        precision="int8", calibrate=tmp_path / "inputs.npz",
    )  # fmt: skip
    assert {kernel.element for kernel in bundle.manifest.kernels} == {"int8", "float32"}
    inputs, expected = bundle.reference_inputs()[0], bundle.reference_outputs()[0]
    with open_network(bundle) as running:
        parity = check_parity(running, bundle)
        answer = running.run(inputs)[0]
        written = [np.array(values) for values in running.intermediates(inputs)]
    assert parity.passed
    # Two or three units lose little; a wrong layer leaves 4.
    errors = np.abs(answer - expected[0]).reshape(4, CLASSES).max(axis=1)
    spreads = expected[0].reshape(4, CLASSES).std(axis=1)
    assert (errors < 0.6 * spreads).all() and (errors > 1e-3 * spreads).all()
    pairs = zip(written, bundle.intermediate_samples(), strict=True)
    agree = [(sample(a) == wanted).mean() for a, wanted in pairs if a.dtype == np.int8]
    # This machine's sums are the same, but where a float32 is rounded.
    assert len(agree) >= 15
    assert min(agree) > 0.98
