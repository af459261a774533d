"""Softmaxes that are no part of an attention are kernels of ours: counted, compared."""

from __future__ import annotations

import pytest
import torch
import tvm
from stages import assert_module_is, imported, lowered, run, with_schedules
from torch import Tensor, nn

from shuffledeploy.compiler.ir.attributes import SOFTMAX, kind_of
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls
from shuffledeploy.compiler.tuning.records.plain_traces import require_plain
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record, recorded_schedule
from shuffledeploy.compiler.tuning.search.tasks import default_schedule

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
    assert len(_softmaxes(module)) == 1
    assert_module_is(with_schedules(module, core), SharesAlong(), *shape)


@pytest.mark.parametrize(("axis", "shape"), [(-1, (4, 22)), (1, (2, 8, 5))])
def test_other_axes_and_odd_rows_go_by_other_rules(axis: int, shape: tuple[int, ...]) -> None:
    module = lowered(imported(SharesAlong(axis), *shape).module)
    assert not _softmaxes(module)
    assert_module_is(with_schedules(module), SharesAlong(axis), *shape)


def test_scores_of_any_size_give_shares() -> None:
    value: Array = torch.tensor([[1e30, -1e30, 0, 1e30], [-torch.inf, -200, -300, 3]]).numpy()
    (shares,) = run(with_schedules(lowered(imported(SharesAlong(), 2, 4).module)), value)
    assert shares.tolist() == [[0.5, 0, 0, 0.5], [0, 0, 0, 1]]


def test_a_record_of_a_softmax_fits_it() -> None:
    core = CORES[0]
    module = lowered(imported(SharesAlong(), 3, 37, 48).module, core)
    (name,) = _softmaxes(module)
    function = kernel_functions(module)[name]
    record = make_record(name, "k", default_schedule(function, core), 1.0, "ns", "measured", 1)
    require_plain(record.trace)
    assert recorded_schedule(function, record) is not None


def _softmaxes(module: tvm.IRModule) -> list[str]:
    functions = kernel_functions(module)
    calls = [name for _, name in kernel_calls(module)]
    return [name for name in calls if kind_of(functions[name]) == SOFTMAX]
