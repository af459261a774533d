"""Softmaxes that are no part of an attention are kernels of ours: counted, compared."""

from __future__ import annotations

import pytest
import torch
from kernels_of_kind import assert_a_record_fits, called_of_kind
from stages import assert_module_is, imported, lowered, run, with_schedules
from torch import Tensor, nn

from shuffledeploy.compiler.ir.attributes import SOFTMAX
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.tiling import Core

CORES = [Core(16, 32), Core(8, 16), Core(4, 32)]


class SharesAlong(nn.Module):
    """SharesAlong of scaled scores along an axis."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return (x * 4.0).softmax(self.axis)


@pytest.mark.parametrize("core", CORES, ids=lambda core: f"{core.lanes}-lanes")
@pytest.mark.parametrize("shape", [(1, 1000), (3, 37, 20), (2, 3, 5, 48)])
def test_answers_are_those_of_pytorch(shape: tuple[int, ...], core: Core) -> None:
    module = lowered(imported(SharesAlong(), *shape).module, core)
    assert len(called_of_kind(module, SOFTMAX)) == 1
    assert_module_is(with_schedules(module, core), SharesAlong(), *shape)


@pytest.mark.parametrize(("axis", "shape"), [(-1, (4, 22)), (1, (2, 8, 5))])
def test_other_axes_and_odd_rows_go_by_other_rules(axis: int, shape: tuple[int, ...]) -> None:
    module = lowered(imported(SharesAlong(axis), *shape).module)
    assert not called_of_kind(module, SOFTMAX)
    assert_module_is(with_schedules(module), SharesAlong(axis), *shape)


def test_scores_of_any_size_give_shares() -> None:
    value: Array = torch.tensor([[1e30, -1e30, 0, 1e30], [-torch.inf, -200, -300, 3]]).numpy()
    (shares,) = run(with_schedules(lowered(imported(SharesAlong(), 2, 4).module)), value)
    assert shares.tolist() == [[0.5, 0, 0, 0.5], [0, 0, 0, 1]]


def test_a_record_of_a_softmax_fits_it() -> None:
    core = CORES[0]
    module = lowered(imported(SharesAlong(), 3, 37, 48).module, core)
    (name,) = called_of_kind(module, SOFTMAX)
    function = kernel_functions(module)[name]
    assert_a_record_fits(name, function, core)
