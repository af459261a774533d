"""Layers by Winograd's way: exact matrices, the right layers, the same answers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from stages import assert_same, draw, imported, lowered, run, seeded, with_schedules
from torch import nn

from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.kernels.winograd_matrices import POINTS, STEP, matrices, tile_of

CORE = Core(8, 16)


@pytest.mark.smoke
@pytest.mark.parametrize("window", [3, 5])
def test_the_matrices_filter_exactly(window: int) -> None:
    tile = tile_of(window)
    a, g, b = matrices(window)
    assert len(a) == STEP
    rng = np.random.default_rng(window)
    image, weights = rng.standard_normal(tile), rng.standard_normal(window)
    expected = np.correlate(image, weights, "valid")
    np.testing.assert_allclose(a @ ((g @ weights) * (b @ image)), expected, rtol=1e-12)


def _error(window: int, points: tuple[Fraction, ...]) -> float:
    """Root mean square of what a layer of 48 channels rounds, in parts of that of its answer."""
    a, g, b = matrices(window, points)
    tile, channels = tile_of(window), 48
    rng = np.random.default_rng(window)
    image = np.maximum(rng.standard_normal((channels, 200, tile)), 0).astype(np.float32)
    weight = rng.standard_normal((channels, window)).astype(np.float32)
    exact = sum(
        image[:, :, k : k + STEP].astype(float) * weight[:, k, None, None] for k in range(window)
    ).sum(0)
    single = [m.astype(np.float32) for m in (a, (weight @ g.T), b)]
    products = (image @ single[2].T * single[1][:, None]).sum(0)
    return float(
        np.sqrt(np.square(products @ single[0].T - exact).mean() / np.square(exact).mean())
    )


def test_the_points_round_less_than_those_that_are_usual() -> None:
    usual = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))
    for window, points in POINTS.items():
        others = tuple(map(Fraction, usual[: tile_of(window) - 1]))
        assert set(points) == set(others) or 1.4 * _error(window, points) < _error(window, others)


@pytest.mark.parametrize(
    ("layer", "height", "width"),
    [
        (nn.Conv2d(32, 64, 3, padding=1), 13, 13),
        (nn.Conv2d(64, 64, 5, padding=2, groups=2), 12, 17),
        (nn.Conv2d(32, 40, 3, bias=False), 18, 14),
    ],
    ids=["tiles-reach-over", "groups", "no-padding"],
)
def test_a_layer_of_many_channels_agrees_with_pytorch(
    layer: nn.Conv2d, height: int, width: int
) -> None:
    before = nn.Conv2d(3, layer.in_channels, 1)
    network = seeded(nn.Sequential(before, layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1)))
    shape = (1, 3, height, width)
    module = lowered(imported(network, *shape).module, CORE)
    names = list(kernel_functions(module))
    assert [name.split("_")[1] for name in names if name.startswith("winograd")] == [
        "input", "product", "output",
    ]  # fmt: skip
    (product,) = (f for name, f in kernel_functions(module).items() if "product" in name)
    # The rows of each product lie together: it neither strides over the others' nor meets them in
    # the cache.
    assert [int(p.shape[0]) for p in (product.params[0], product.params[-1])] == [
        tile_of(layer.kernel_size[0]) ** 2
    ] * 2
    value = draw(*shape)
    assert_same(run(with_schedules(module, CORE), value.numpy()), network, value)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(32, 32, 3, stride=2, padding=1), 32),
        (nn.Conv2d(32, 32, 3, padding=2, dilation=2), 16),
        (nn.Conv2d(64, 64, 3, padding=1, groups=4), 16),
        (nn.Conv2d(32, 32, (3, 1), padding=(1, 0)), 16),
        (nn.Conv2d(32, 32, 3, padding=1), 7),
    ],
    ids=["stride", "dilation", "few-channels", "not-square", "few-pixels"],
)
def test_other_layers_stay_direct(layer: nn.Conv2d, size: int) -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, layer.in_channels, 1), layer))
    module = lowered(imported(network, 1, 3, size, size).module, CORE)
    assert not [name for name in kernel_functions(module) if name.startswith("winograd")]
