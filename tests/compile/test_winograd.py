"""Layers by Winograd's way: exact matrices, the right layers, the same answers."""

from __future__ import annotations

import numpy as np
import pytest
from stages import assert_same, draw, imported, lowered, run, seeded, with_schedules
from torch import nn

from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.kernels.winograd import STEP, matrices, tile_of

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
