"""Layer norms over the last axis are kernels of ours: counted, compared."""

from __future__ import annotations

import pytest
import torch
from kernels_of_kind import assert_a_record_fits, called_of_kind
from stages import assert_module_is, draw, imported, lowered, run, with_schedules
from torch import Tensor, nn

from shuffledeploy.compiler.ir.attributes import LANES, NORM
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.kernels.tiling import Core

CORES = [Core(16, 32), Core(8, 16), Core(4, 32)]


class Normed(nn.Module):
    """A norm with numbers of its own for each place, or with none."""

    def __init__(self, *shape: int, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape, eps=1e-3, elementwise_affine=affine)
        if affine:
            with torch.no_grad():
                self.norm.weight.copy_(draw(*shape))
                self.norm.bias.copy_(draw(*shape) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x * 3.0 + 2.0)


CASES = [
    (Normed(48), (1, 17, 48)),
    (Normed(20), (2, 3, 4, 20)),
    (Normed(4, affine=False), (37, 4)),
    (Normed(6, 4, 4), (2, 6, 4, 4)),
]


@pytest.mark.parametrize("core", CORES, ids=lambda core: f"{core.lanes}-lanes")
@pytest.mark.parametrize(("network", "shape"), CASES, ids=["rows", "short", "plain", "map"])
def test_answers_are_those_of_pytorch(
    network: nn.Module, shape: tuple[int, ...], core: Core
) -> None:
    module = lowered(imported(network, *shape).module, core)
    assert len(called_of_kind(module, NORM)) == 1
    assert_module_is(with_schedules(module, core), network, *shape)


def test_rows_that_fill_no_vectors_go_by_other_rules() -> None:
    module = lowered(imported(Normed(6), 5, 6).module)
    assert not called_of_kind(module, NORM)
    assert_module_is(with_schedules(module), Normed(6), 5, 6)


def test_means_far_from_zero_cost_no_digits() -> None:
    network, value = Normed(64, affine=False), draw(1, 9, 64) + 1000.0
    (ours,) = run(with_schedules(lowered(imported(network, 1, 9, 64).module)), value.numpy())
    exact = torch.layer_norm((value * 3.0 + 2.0).double(), (64,), eps=1e-3)
    assert torch.allclose(torch.from_numpy(ours).double(), exact, atol=2e-3)


def test_a_record_of_a_norm_fits_it() -> None:
    core = CORES[0]
    module = lowered(imported(Normed(48), 1, 17, 48).module, core)
    (name,) = called_of_kind(module, NORM)
    function = kernel_functions(module)[name]
    assert function.attrs[LANES] == 16 and len(forms(function, core)) == 1
    assert_a_record_fits(name, function, core)
