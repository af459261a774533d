"""Linear layers over tokens are products of rows with their epilogues: counted, compared."""

from __future__ import annotations

import pytest
import torch
from stages import assert_module_is, count, imported, lowered, seeded, with_schedules
from torch import Tensor, nn
from torch.nn import functional

from shuffledeploy.compiler.ir.graph import bindings_of, operator, shape_of
from shuffledeploy.compiler.passes.graph.products_of_rows import products_of_rows
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls


class HalfBlock(nn.Module):
    """The second half of a transformer's block, with a scale of channels and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(12, 20), nn.Linear(20, 12)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 12))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.wide(x)) * 2.0
        return x + self.narrow(y) * self.scale


class OfTransposed(nn.Module):
    """What a linear layer reads is no memory of rows: the import broadcasts the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.linear(x.transpose(1, 2)))
        return y.transpose(1, 2) - x.mean()


class MatrixOfEachImage(nn.Module):
    """A matrix for each image, and one that is computed, are no linear layers."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("matrices", torch.randn(3, 6, 4, generator=generator))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        matrices = torch.as_tensor(self.matrices)
        return torch.relu(x @ matrices), torch.tanh(x @ x.transpose(1, 2))


@pytest.mark.parametrize(
    ("network", "shape", "kernels"),
    [(HalfBlock(), (1, 7, 12), 2), (HalfBlock(), (3, 7, 12), 2), (HalfBlock(), (2, 3, 5, 12), 2)],
    ids=["tokens", "images", "map"],
)
def test_all_that_follows_a_product_is_its_epilogue(
    network: nn.Module, shape: tuple[int, ...], kernels: int
) -> None:
    module = lowered(imported(seeded(network), *shape).module)
    names = [name for _, name in kernel_calls(module)]
    assert len(names) == kernels
    assert all(name.startswith("conv1x1") for name in names)
    assert_module_is(with_schedules(module), network, *shape)


def test_a_weight_that_is_broadcast_is_one_matrix() -> None:
    module = imported(seeded(OfTransposed()), 2, 6, 5).module
    assert "broadcast_to" in count(module)
    after = lowered(module)
    assert "conv1x1_6x8_10x1" in [name for _, name in kernel_calls(after)]
    assert_module_is(with_schedules(after), seeded(OfTransposed()), 2, 6, 5)


def test_other_products_stay_as_they_are() -> None:
    module = imported(MatrixOfEachImage(), 3, 5, 6).module
    products = [v for _, v in bindings_of(products_of_rows(module)) if _is_product(v)]
    assert [shape_of(product) for product in products] == [(3, 5, 4), (3, 5, 5)]
    assert_module_is(products_of_rows(module), MatrixOfEachImage(), 3, 5, 6)


def _is_product(value: object) -> bool:
    return operator(value) == "relax.matmul"
