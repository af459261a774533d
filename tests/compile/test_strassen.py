"""Layers by Strassen's way: exact sums, the right layers, the same answers, few digits lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stages import assert_same, draw, imported, lowered, run, seeded, with_schedules
from torch import nn

from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.strassen import (
    PRODUCTS,
    left_sums,
    quarters_of,
    right_sums,
    sum_weights,
)
from shuffledeploy.compiler.kernels.tiling import Core

ARM, AVX2, AVX512 = Core(4, 32), Core(8, 16), Core(16, 32)


class _Residual(nn.Module):
    """A layer of many channels that a tensor is added to, and one with an activation after it."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(4, 512, 1)
        self.over, self.curved = nn.Conv2d(512, 512, 1), nn.Conv2d(512, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        return nn.functional.silu(self.curved(torch.relu(self.over(y) + y)))


@pytest.mark.smoke
def test_seven_products_of_sums_are_the_product() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(-9, 9, (2, 6, 6)).astype(float)

    def quarters(m: np.ndarray) -> tuple[np.ndarray, ...]:
        return m[:3, :3], m[:3, 3:], m[3:, :3], m[3:, 3:]

    pairs = zip(left_sums(*quarters(a)), right_sums(*quarters(b)), strict=True)
    for ours, exact in zip(quarters_of([x @ y for x, y in pairs]), quarters(a @ b), strict=True):
        np.testing.assert_array_equal(ours, exact)
    wide = sum_weights(b[None, None])
    np.testing.assert_array_equal(wide[0, 0].reshape(3, PRODUCTS, 3)[:, 4], b[:3, 3:] - b[:3, :3])


@pytest.mark.parametrize(
    ("size", "core"),
    [((7, 7), ARM), ((6, 9), ARM), ((11, 11), AVX2)],
    ids=["odd-pixels", "even-pixels", "avx2"],
)
def test_layers_of_many_channels_agree_with_pytorch(size: tuple[int, int], core: Core) -> None:
    network, shape = seeded(_Residual(outputs=130 * core.lanes)), (1, 4, *size)
    module = lowered(imported(network, *shape).module, core)
    names = [name.split("_")[1] for name in kernel_functions(module) if "strassen" in name]
    # Both layers call the same sums of their input.
    assert sorted(names) == ["output", "output", "product", "product", "sums"]
    value = draw(*shape)
    assert_same(run(with_schedules(module, core), value.numpy()), network, value)


@pytest.mark.smoke
def test_a_product_of_large_matrices_loses_few_digits() -> None:
    rng = np.random.default_rng(5)
    a = rng.standard_normal((2, 64, 512)).astype(np.float32)
    b = rng.standard_normal((512, 512)).astype(np.float32)
    rows = a.reshape(128, 512)
    exact = rows.astype(np.float64) @ b.astype(np.float64)
    left = left_sums(*(part for half in a for part in np.split(half, 2, axis=1)))
    right = np.split(sum_weights(b[None, None])[0, 0], PRODUCTS, axis=1)
    c11, c12, c21, c22 = quarters_of([x @ y for x, y in zip(left, right, strict=True)])
    ours = np.block([[c11, c12], [c21, c22]])
    in_full = np.abs(rows @ b - exact).max()
    assert np.abs(ours - exact).max() < 8 * in_full
    assert np.abs(ours - exact).max() < 1e-5 * np.abs(exact).max()


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("layer", "size", "core"),
    [
        (nn.Conv2d(512, 512, 1), 14, AVX512),
        (nn.Conv2d(512, 512, 1), 7, AVX2),
        (nn.Conv2d(128, 512, 1), 14, AVX2),
        (nn.Conv2d(512, 512, 1, stride=2), 14, ARM),
        (nn.Conv2d(512, 512, 1, groups=2), 7, ARM),
        (nn.Conv2d(256, 512, 1), 7, ARM),
        (nn.Conv2d(512, 516, 1), 7, ARM),
        (nn.Conv2d(512, 512, 1), 4, ARM),
    ],
    ids=[
        "avx512",
        "avx2-few-pixels",
        "avx2-few-channels",
        "stride",
        "groups",
        "few-channels",
        "odd-vectors",
        "few-pixels",
    ],
)
def test_other_layers_stay_in_full(layer: nn.Conv2d, size: int, core: Core) -> None:
    network = seeded(nn.Sequential(nn.Conv2d(4, layer.in_channels, 1), layer))
    module = lowered(imported(network, 1, 4, size, size).module, core)
    assert not [name for name in kernel_functions(module) if "strassen" in name]
