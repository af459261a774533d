"""Parity and no shuffle kernel for the zoo, on this machine and on the emulated Cortex-A72.

At 64x64 so that it takes seconds; `make zoo` does every network at its own size.
"""

from __future__ import annotations

import pytest

from shuffledeploy.deploy.actions.zoo_check import ZooRow, check, print_rows
from shuffledeploy.deploy.runtime.parity import Parity
from shuffledeploy.model.registry import names

pytestmark = pytest.mark.long

SMALL = (64, 64)


@pytest.mark.parametrize("model", ["shufflenet-g2-x1", "shufflenet-g8-x1"])
def test_the_zoo_answers_as_pytorch_does_here(model: str) -> None:
    row = check(model, "host", SMALL)
    assert row.passed, row


@pytest.mark.emulated
@pytest.mark.parametrize("model", ["shufflenet-g4-x1"])
def test_the_zoo_answers_as_pytorch_does_on_an_emulated_core(model: str, board_built: None) -> None:
    row = check(model, "arm", SMALL)
    assert row.passed, row


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("model", "core"),
    [("shufflenet-g3-x0.25", "cortex-a76"), ("mobilenet-x0.25", "cortex-a55")],
)
def test_the_zoo_answers_as_pytorch_does_in_half(model: str, core: str, board_built: None) -> None:
    row = check(model, core, SMALL, "float16")
    assert row.passed, row.parity
    assert row.parity.precision == row.standalone.precision == "float16"


@pytest.mark.emulated
def test_committed_records_fit_the_default_network(board_built: None) -> None:
    row = check("shufflenet-g3-x0.5", "arm")
    assert row.records == 28
    assert row.passed


def test_names_and_figures_stand_whole_at_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    parity = Parity(7e-6, 3e-6, 1.0, 1.0, 5, 1e-4, True)
    print_rows([ZooRow(name, "host-emeraldrapids", 55, 0, 28, parity, parity) for name in names()])
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if "…" in line]
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line.split()} >= set(names())
