"""What TVM's own rules made of a network, and what that takes, is told at a run's end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import shuffledeploy
from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.deploy.actions.rule_shares import rule_shares
from shuffledeploy.deploy.presentation.rule_table import print_rules


class _Mixed(nn.Module):
    """A convolution of ours, two operators that TVM fuses, and two that it computes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.fmod(self.conv(x), 2.0).cos()
        return torch.cumprod(torch.cumsum(y.mean((2, 3)), -1), -1)


@pytest.fixture(scope="module", params=["host", "cortex-a72"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    program = torch.export.export(_Mixed().eval(), (torch.ones(1, 3, 12, 12),))
    folder = tmp_path_factory.mktemp("mixed") / "bundle"
    return shuffledeploy.compile(program, target=request.param, output=folder)


def test_kernels_by_rules_know_their_operators(bundle: Bundle) -> None:
    found = {kernel.operators for kernel in bundle.manifest.kernels_by_rules}
    assert found == {("cos", "mod"), ("cumsum",), ("cumprod",)}
    own = [kernel for kernel in bundle.manifest.kernels if not kernel.operators]
    assert len(own) == 2


def test_their_shares_are_told(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    on_board = bundle.manifest.target == "cortex-a72"
    shares = rule_shares(bundle, "emulated" if on_board else "local")
    assert shares is not None
    assert 0 < shares.total < 1
    assert shares.of == ("instructions (counted)" if on_board else "time (measured)")
    print_rules(bundle.manifest, shares)
    told = capsys.readouterr().out
    assert "3 of 5 kernel calls are by TVM's own rules" in told
    assert "cos, mod" in told
    assert max(map(len, told.splitlines())) <= 80
    assert rule_shares(bundle, "ssh://somewhere") is None


def test_a_network_of_ours_alone_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Hardswish(), nn.Conv2d(8, 4, 1))
    program = torch.export.export(network.eval(), (torch.ones(1, 3, 6, 6),))
    bundle = shuffledeploy.compile(program, target="host", output=tmp_path / "bundle")
    # The last feature map's transposition to the program's layout.
    assert {kernel.operators for kernel in bundle.manifest.kernels_by_rules} <= {("permute_dims",)}
    print_rules(bundle.manifest, None)
    assert "1 of 3 kernel calls are by TVM's own rules\n" in capsys.readouterr().out
