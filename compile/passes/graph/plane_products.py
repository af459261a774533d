"""Layers as products on planes, which Winograd's and Strassen's ways both are.

    x -> transform -> planes -> a pointwise convolution of each -> planes -> transform -> y

The transforms are kernels of their own; the products are the kernel of every other convolution.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import relax, tirx

from shuffledeploy.compiler.ir.attributes import TRANSFORM
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.kernels.convolution_shape import Convolution
from shuffledeploy.compiler.kernels.packing import pack_weight
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.sites import (
    Kernel,
    Site,
    convolution_kernel,
    emit_call,
    lanes_for,
)


def transform(
    name: str, function: tirx.PrimFunc, data: Any, output_shape: tuple[int, int, int, int]
) -> Kernel:
    """Describe the call of a kernel that makes planes of a tensor, or a tensor of planes."""
    return Kernel(TRANSFORM, name, function, [data], [], {"multiply_adds": 0}, output_shape)


def pointwise_on_planes(
    planes: int, size: tuple[int, int], groups: int, channels: int, group_outputs: int, core: Core
) -> Convolution:
    """Describe a pointwise convolution of planes one after another, each with its own weights.

    Parameters
    ----------
    planes : int
        How many there are.
    size : tuple of int
        Height and width of each.
    groups, channels : int
        Of each.
    group_outputs : int
        Output channels of a group.
    core : Core
        With the vectors of the planes' element type, float32.
    """
    return Convolution(
        height=size[0], width=size[1], channels=planes * channels, stored_channels=channels,
        groups=planes * groups, group_outputs=group_outputs, kernel=(1, 1), stride=(1, 1),
        padding=(0, 0, 0, 0), dilation=(1, 1), run=channels // groups, scattered=False,
        channels_first=False, lanes=lanes_for(group_outputs, core), epilogue=(), planes=planes,
    )  # fmt: skip


def emit_products(
    site: Site, name: str, product: Convolution, weight: Array, before: Kernel
) -> relax.Var:
    """Emit the call that makes planes, and that of their products; give the products.

    Parameters
    ----------
    site : Site
        Where the layer stands.
    name : str
        Of the products' kernel.
    product : Convolution
        As :func:`pointwise_on_planes` gave it.
    weight : Array
        What each plane is multiplied with, as :func:`pack_weight` takes it.
    before : Kernel
        What makes the planes.
    """
    inputs = [emit_call(site, before, []), relax.const(pack_weight(weight, product))]
    kernel = dataclasses.replace(convolution_kernel(product, inputs, []), name=name)
    return emit_call(site, kernel, [])
