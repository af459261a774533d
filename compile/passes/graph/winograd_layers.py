"""Layers of 3x3 and 5x5 windows that are cheaper by Winograd's way.

Before::

    y = conv3x3(x)                  # 9 multiplications an output

After::

    v = winograd_input(x)           # 36 numbers for each tile of 6x6 pixels (5x5: 64 of 8x8)
    m = conv1x1(v)                  # 36 planes, a pixel for each tile
    y = winograd_output(m)          # 4x4 pixels from each 36 numbers, and the epilogue
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import relax

from shuffledeploy.compiler.ir.attributes import TRANSFORM
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.convolution_shape import Convolution
from shuffledeploy.compiler.kernels.packing import pack_weight
from shuffledeploy.compiler.kernels.winograd import (
    WINDOWS,
    Winograd,
    saves,
    transform_input,
    transform_output,
    transform_weight,
)
from shuffledeploy.compiler.passes.graph.sites import (
    Kernel,
    Site,
    convolution_kernel,
    emit_call,
    lanes_for,
)

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
        core.lanes, conv.epilogue, conv.dtype,
    )  # fmt: skip
    rows, columns = layer.tiles
    planes = layer.tile**2
    place = f"{conv.output_height}x{conv.output_width}"
    tiles = Kernel(
        TRANSFORM, f"winograd_input_{conv.channels}_{place}", transform_input(layer), [data], [],
        {"multiply_adds": 0}, (planes, rows, columns, conv.channels),
    )  # fmt: skip
    product = Convolution(
        height=rows, width=columns, channels=planes * conv.channels,
        stored_channels=conv.channels, groups=planes * conv.groups,
        group_outputs=conv.group_outputs, kernel=(1, 1), stride=(1, 1), padding=(0, 0, 0, 0),
        dilation=(1, 1), run=conv.group_inputs, scattered=False, channels_first=False,
        lanes=lanes_for(conv.group_outputs, core), epilogue=(), planes=planes,
    )  # fmt: skip
    packed = relax.const(pack_weight(transform_weight(weight), product))
    inputs = [emit_call(site, tiles, []), packed]
    products = dataclasses.replace(
        convolution_kernel(product, inputs, []),
        name=f"winograd_product_g{conv.groups}_{conv.channels}x{outputs}_{place}",
    )
    return Kernel(
        TRANSFORM, f"winograd_output_{outputs}_{place}", transform_output(layer),
        [emit_call(site, products, [])], [], {"multiply_adds": 0}, layer.output_shape,
    )  # fmt: skip
