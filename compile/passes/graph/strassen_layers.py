"""Pointwise layers with so many channels that Strassen's way is cheaper.

Before::

    y = conv1x1(x)                  # pixels by inputs by outputs

After::

    l = strassen_sums(x)            # 7 planes of half the pixels by half the channels
    p = conv1x1(l)                  # 7 products, each an eighth of the layer
    y = strassen_output(p)          # sums of the products, and the epilogue

Answers round somewhat more: of a layer of 512 by 512 channels the largest error is some three times
that of the product in full (`tests/compile/test_strassen.py`), a hundredth of what parity allows.
"""

from __future__ import annotations

from typing import Any

from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.convolution_shape import Convolution
from shuffledeploy.compiler.kernels.pixel_order import AS_THEY_LIE
from shuffledeploy.compiler.kernels.strassen import (
    PRODUCTS,
    Strassen,
    join_quarters,
    sum_quarters,
    sum_weights,
)
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.plane_products import (
    emit_products,
    pointwise_on_planes,
    transform,
)
from shuffledeploy.compiler.passes.graph.sites import Kernel, Site

# Channels read and written that pay for the sums, for an eighth of the multiply-adds is saved and
# sums go through memory; and pixels for which it is worth reading seven quarters of the weights.
# Estimated of cores that multiply by lanes.
FEWEST_BY_LANE = (512, 49)
# Measured with AVX2 on an Intel core: MobileNet is 1.06 times as fast, of ResNeXt-50 the layers of
# 49 pixels are slower so. With AVX-512 nothing is gained: it multiplies twice as fast.
FEWEST_AVX2 = (256, 100)


def is_strassen(conv: Convolution, core: Core) -> bool:
    """Whether a layer is cheaper by seven products of its quarters than in full.

    Half precision would lose digits.
    """
    if not (core.multiplies_by_lane or core.overlaps):
        return False
    fewest_channels, fewest_pixels = FEWEST_BY_LANE if core.multiplies_by_lane else FEWEST_AVX2
    pointwise = conv.kernel == (1, 1) == conv.stride and not any(conv.padding)
    channels = (conv.group_inputs, conv.group_outputs)
    return (
        conv.dtype == FLOAT
        and pointwise
        and conv.groups == 1
        and conv.run == conv.group_inputs == conv.stored_channels
        and not (conv.scattered or conv.channels_first)
        and conv.pixels == AS_THEY_LIE
        and min(channels) >= fewest_channels
        and not any(number % (2 * core.lanes) for number in channels)
        and conv.output_height * conv.output_width >= fewest_pixels
    )


def strassen(site: Site, conv: Convolution, weight: Array, data: Any) -> Kernel:
    """Call the sums of the input and the products; describe the sums of the output.

    Parameters
    ----------
    site : Site
        Where the layer stands.
    conv : Convolution
        The layer, as its direct kernel would compute it.
    weight : Array
        ``(1, 1, K, O)``, HWIO.
    data : Expr
        The layer's input.
    """
    inputs, outputs = conv.group_inputs, conv.group_outputs
    layer = Strassen(conv.height, conv.width, inputs, outputs, site.core.lanes, conv.epilogue)
    place = f"{conv.height}x{conv.width}"
    sums = transform(
        f"strassen_sums_{inputs}_{place}", sum_quarters(layer), data,
        (PRODUCTS, 1, layer.half, inputs // 2),
    )  # fmt: skip
    product = pointwise_on_planes(
        PRODUCTS, (1, layer.half), 1, inputs // 2, outputs // 2, site.core
    )
    name = f"strassen_product_{inputs}x{outputs}_{place}"
    products = emit_products(site, name, product, sum_weights(weight), sums)
    output = f"strassen_output_{outputs}_{place}"
    return transform(output, join_quarters(layer), products, layer.output_shape)
