"""Layers of 3x3 and 5x5 windows that are cheaper by Winograd's way.

Before::

    y = conv3x3(x)                  # 9 multiplications an output

After::

    v = winograd_input(x)           # 36 numbers for each tile of 6x6 pixels (5x5: 64 of 8x8)
    m = conv1x1(v)                  # 36 planes, a pixel for each tile
    y = winograd_output(m)          # 4x4 pixels from each 36 numbers, and the epilogue
"""

from __future__ import annotations

from typing import Any

from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.convolution_shape import Convolution
from shuffledeploy.compiler.kernels.winograd import Winograd, transform_input, transform_output
from shuffledeploy.compiler.kernels.winograd_matrices import WINDOWS, saves, transform_weight
from shuffledeploy.compiler.passes.graph.plane_products import (
    emit_products,
    pointwise_on_planes,
    transform,
)
from shuffledeploy.compiler.passes.graph.sites import Kernel, Site

# Channels of a group that pay for the transforms.
FEWEST_CHANNELS = 32
# Least saving of multiplications: the transforms and larger weights cost the rest.
LEAST_SAVING = 1.8
# The same in half precision, of which the direct form does twice as many at once: the transforms'
# way stays float32.
LEAST_SAVING_IN_HALF = 2 * LEAST_SAVING
# Pixels of an output for which it is worth reading four times as many weights.
FEWEST_PIXELS = 100


def is_winograd(conv: Convolution) -> bool:
    """Whether a layer is cheaper by transforms and products than directly."""
    window = conv.kernel[0]
    return (
        conv.kernel == (window, window)
        and window in WINDOWS
        and conv.stride == (1, 1) == conv.dilation
        and not conv.channels_first
        and conv.run == conv.group_inputs
        and conv.stored_channels == conv.channels
        and min(conv.group_inputs, conv.group_outputs) >= FEWEST_CHANNELS
        and conv.output_height * conv.output_width >= FEWEST_PIXELS
        and saves(window, conv.output_height, conv.output_width)
        >= (LEAST_SAVING if conv.dtype == FLOAT else LEAST_SAVING_IN_HALF)
    )


def winograd(site: Site, conv: Convolution, weight: Array, data: Any) -> Kernel:
    """Call the transform of the input and the products; describe the transform of the output.

    Parameters
    ----------
    site : Site
        Where the layer stands.
    conv : Convolution
        The layer, as its direct kernel would compute it.
    weight : Array
        ``(r, r, K, O)``, HWIO.
    data : Expr
        The layer's input.
    """
    outputs, core = conv.groups * conv.group_outputs, site.core.of(FLOAT)
    layer = Winograd(
        conv.height, conv.width, conv.channels, outputs, conv.kernel[0], conv.padding,
        core.lanes, conv.epilogue, conv.dtype, conv.pixels,
    )  # fmt: skip
    rows, columns = layer.tiles
    planes = layer.tile**2
    place = f"{conv.output_height}x{conv.output_width}"
    tiles = transform(
        f"winograd_input_{conv.channels}_{place}", transform_input(layer), data,
        (planes, rows, columns, conv.channels),
    )  # fmt: skip
    product = pointwise_on_planes(
        planes, (rows, columns), conv.groups, conv.channels, conv.group_outputs, core
    )
    name = f"winograd_product_g{conv.groups}_{conv.channels}x{outputs}_{place}"
    products = emit_products(site, name, product, transform_weight(weight), tiles)
    output = f"winograd_output_{outputs}_{place}"
    return transform(output, transform_output(layer), products, layer.output_shape)
