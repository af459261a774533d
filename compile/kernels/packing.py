"""Constants of a convolution, laid out as its kernel reads them."""

from __future__ import annotations

import numpy as np

from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.kernels.convolution import Convolution, bias_shape


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
