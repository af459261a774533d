"""Parity and no shuffle kernel for the zoo, on this machine and on the emulated Cortex-A72.

At 64x64 so that it takes seconds; `make zoo` does every network at its own size.
"""

from __future__ import annotations

import pytest

from shuffledeploy.deploy.actions.zoo_check import check

SMALL = (64, 64)


@pytest.mark.parametrize("model", ["shufflenet-g2-x1", "shufflenet-g8-x1"])
def test_the_zoo_answers_as_pytorch_does_here(model: str) -> None:
    row = check(model, "host", SMALL)
    assert row.parity.passed, row.parity
    assert row.shuffle_kernels == 0


@pytest.mark.emulated
@pytest.mark.parametrize("model", ["shufflenet-g4-x1"])
def test_the_zoo_answers_as_pytorch_does_on_an_emulated_core(model: str, board_built: None) -> None:
    row = check(model, "arm", SMALL)
    assert row.parity.passed, row.parity
    assert row.shuffle_kernels == 0


@pytest.mark.emulated
def test_committed_records_fit_the_default_network(board_built: None) -> None:
    row = check("shufflenet-g3-x0.5", "arm")
    assert row.records == 28
    assert row.passed
