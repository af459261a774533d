"""Constants of a convolution, laid out as its kernel reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.kernels.blocks import WEIGHT
from shuffledeploy.compiler.kernels.convolution_shape import Convolution, bias_shape


def pack_weight(weight: Array, conv: Convolution) -> Array:
    """Lay weights out as the kernel reads them.

    Parameters
    ----------
    weight : Array
        ``(kh, kw, K, groups * N)``, HWIO.
    conv : Convolution
        The kernel.

    Returns
    -------
    Array
        ``(groups, kh, kw, K, padded N)``, zeros in the padding.
    """
    kh, kw, depth, _ = weight.shape
    split = weight.reshape(kh, kw, depth, conv.groups, conv.group_outputs)
    packed = np.zeros((conv.groups, kh, kw, depth, conv.padded_outputs), weight.dtype)
    packed[..., : conv.group_outputs] = split.transpose(3, 0, 1, 2, 4)
    return packed


def pack_bias(bias: Array, conv: Convolution) -> Array:
    """Pad a bias of ``(groups * N,)`` to ``(groups, padded N)``."""
    packed = np.zeros(bias_shape(conv), bias.dtype)
    packed[:, : conv.group_outputs] = bias.reshape(conv.groups, conv.group_outputs)
    return packed


def block_weight(schedule: Schedule, accumulate: Any, width: int) -> None:
    """Let the weights of one tile's outputs lie together, in the order in which it reads them."""
    reads = schedule.get(accumulate).reads
    index = next(i for i, region in enumerate(reads) if region.source.name == WEIGHT)
    schedule.transform_layout(
        accumulate,
        ("read", index),
        lambda g, kh, kw, k, o: (g, o // width, kh, kw, k, o % width),
    )
