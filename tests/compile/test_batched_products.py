"""Products of two tensors that the network computes are kernels of ours: counted, compared."""

from __future__ import annotations

import pytest
from kernels_of_kind import assert_a_record_fits, called_of_kind, with_form
from stages import assert_module_is, assert_same, draw, imported, lowered, run, with_schedules
from torch import Tensor, nn

from shuffledeploy.compiler.ir.attributes import PRODUCT
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls

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
    assert len(called_of_kind(module, PRODUCT)) == 1
    assert_module_is(with_schedules(module, core), network, *shape)


def test_slices_transpositions_and_numbers_leave_no_kernel() -> None:
    module = lowered(imported(OfChannels(), 2, 33, 28).module)
    assert [name for _, name in kernel_calls(module)] == ["product_4x7x7x33"]


def test_products_of_few_rows_go_by_other_rules() -> None:
    module = lowered(imported(TimesTheFirst(), 1, 3, 3).module)
    assert not called_of_kind(module, PRODUCT)
    assert_module_is(with_schedules(module), TimesTheFirst(), 1, 3, 3)


@pytest.mark.parametrize("core", CORES, ids=lambda core: f"{core.lanes}-lanes")
def test_every_form_computes_the_same_and_leaves_a_plain_trace(core: Core) -> None:
    network, shape = OfImages(), (1, 33, 33)
    module = lowered(imported(network, *shape).module, core)
    (name,) = called_of_kind(module, PRODUCT)
    function = kernel_functions(module)[name]
    value = draw(*shape)
    for number in range(len(forms(function, core))):
        scheduled = with_schedules(module, core, with_form(PRODUCT, number))
        assert_same(run(scheduled, value.numpy()), network, value, what=f"form {number}, ")
    assert_a_record_fits(name, function, core)
