"""Products of two tensors that the network computes are kernels of ours: counted, compared."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import tvm
from stages import assert_module_is, assert_same, draw, imported, lowered, run, with_schedules
from torch import Tensor, nn
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.attributes import PRODUCT, kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls
from shuffledeploy.compiler.tuning.records.plain_traces import require_plain
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record, recorded_schedule
from shuffledeploy.compiler.tuning.search.tasks import default_schedule

CORES = [Core(16, 32), Core(8, 16), Core(4, 32)]


class OfChannels(nn.Module):
    """Scores of channels against each other, as in a cross-covariance attention."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        images, tokens, channels = x.shape
        parts = x.reshape(images, tokens, 2, self.heads, channels // 2 // self.heads)
        left, right = parts.permute(2, 0, 3, 4, 1).unbind(0)
        return (left * 0.25) @ right.transpose(-2, -1)


class OfImages(nn.Module):
    """Each image is multiplied with its own columns."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ x[:, :, 1:].tanh()


class TimesTheFirst(nn.Module):
    """All images are multiplied with the first."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ x[0].sigmoid()


CASES = [
    (OfChannels(), (2, 33, 28)),
    (OfImages(), (3, 19, 19)),
    (TimesTheFirst(), (3, 24, 24)),
]


@pytest.mark.parametrize("core", CORES, ids=lambda core: f"{core.lanes}-lanes")
@pytest.mark.parametrize(("network", "shape"), CASES, ids=["channels", "images", "shared"])
def test_answers_are_those_of_pytorch(
    network: nn.Module, shape: tuple[int, ...], core: Core
) -> None:
    module = lowered(imported(network, *shape).module, core)
    assert len(_products(module)) == 1
    assert_module_is(with_schedules(module, core), network, *shape)


def test_slices_transpositions_and_numbers_leave_no_kernel() -> None:
    module = lowered(imported(OfChannels(), 2, 33, 28).module)
    assert [name for _, name in kernel_calls(module)] == ["product_4x7x7x33"]


def test_products_of_few_rows_go_by_other_rules() -> None:
    module = lowered(imported(TimesTheFirst(), 1, 3, 3).module)
    assert not _products(module)
    assert_module_is(with_schedules(module), TimesTheFirst(), 1, 3, 3)


@pytest.mark.parametrize("core", CORES, ids=lambda core: f"{core.lanes}-lanes")
def test_every_form_computes_the_same_and_leaves_a_plain_trace(core: Core) -> None:
    network, shape = OfImages(), (1, 33, 33)
    module = lowered(imported(network, *shape).module, core)
    (name,) = _products(module)
    function = kernel_functions(module)[name]
    value = draw(*shape)
    for number in range(len(forms(function, core))):
        scheduled = with_schedules(module, core, _with_form(number))
        assert_same(run(scheduled, value.numpy()), network, value, what=f"form {number}, ")
    record = make_record(name, "k", default_schedule(function, core), 1.0, "ns", "measured", 1)
    require_plain(record.trace)
    assert recorded_schedule(function, record) is not None


def _with_form(number: int) -> Callable[[Any, Core], Any]:
    """Schedule products with the form of a number, its free numbers drawn."""
    generator = random.Random(number)

    def schedule(function: Any, core: Core) -> Any:
        if kind_of(function) != PRODUCT:
            return function
        state = Schedule(tvm.IRModule({"main": function}), debug_mask="all")
        forms(function, core)[number](state, lambda options, _: generator.choice(list(options)))
        return state.mod["main"]

    return schedule


def _products(module: tvm.IRModule) -> list[str]:
    functions = kernel_functions(module)
    calls = [name for _, name in kernel_calls(module)]
    return [name for name in calls if kind_of(functions[name]) == PRODUCT]
