"""Weights in int8: rounded by output channel, laid out in words of four input channels."""

from __future__ import annotations

import numpy as np

from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.kernels.convolution_shape import Convolution
from shuffledeploy.compiler.kernels.int8_products import FOUR, PAIRS_OF_WORD, TWO, words_of

#: The largest int8 that stands for a number: -128 is left out, so that signs are alike.
MOST = 127


def scales_of(weight: Array) -> Array:
    """Give what one stands for in each output channel of weights.

    The largest weight is a whole number of these, at most `MOST` and at least half of that: the one
    with which rounding loses the least energy. So weights that were rounded have the same again.

    Parameters
    ----------
    weight : Array
        Outputs on the last axis.

    Returns
    -------
    Array
        ``(outputs,)``, float32; 1 where all weights are zero.
    """
    numbers = weight.astype(np.float32).reshape(-1, weight.shape[-1])
    largest = np.abs(numbers).max(axis=0)
    largest = np.where(largest > 0, largest, np.float32(MOST))
    best, least = np.ones_like(largest), np.full(largest.shape, np.inf, np.float32)
    for steps in range(MOST, MOST // 2, -1):
        scales = largest / np.float32(steps)
        lost = np.rint(numbers / scales) * scales - numbers
        energy = np.einsum("ko,ko->o", lost, lost)
        best, least = np.where(energy < least, scales, best), np.minimum(energy, least)
    return best


def rounded(weight: Array, scales: Array) -> Array:
    """Round weights to the int8 that stand for them, by the scale of each output."""
    whole = np.rint(weight.astype(np.float64) / scales)
    return np.clip(whole, -MOST, MOST).astype(np.int8)


def pack_columns(taps: Array) -> Array:
    """Lay the weights of a depthwise convolution out as words of four of a column.

    Parameters
    ----------
    taps : Array
        int8 ``(kh, kw, C)``.

    Returns
    -------
    Array
        int32 ``(words, kw, C)``; four rows each, the first lowest, zeros beyond the last.
    """
    height, width, channels = taps.shape
    words = words_of(height)
    rows = np.zeros((words * FOUR, width, channels), np.int8)
    rows[:height] = taps
    apart = rows.reshape(words, FOUR, width, channels).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(apart).view("<i4")[..., 0]


def pack_words(packed: Array, conv: Convolution) -> Array:
    """Lay weights out as words.

    Parameters
    ----------
    packed : Array
        int8 ``(groups, kh, kw, K, padded N)``, as `compiler.kernels.packing.pack_weight` gives it.
    conv : Convolution
        The kernel.

    Returns
    -------
    Array
        int32 ``(groups, kh, kw, words, padded N)``; four input channels each, the first lowest. Of
        a kernel of pairs int16 ``(groups, kh, kw, 2 * words, padded N)``; two channels each. The
        last word ends with the group: of channels that the word before has it holds zeros.
    """
    *outer, depth, outputs = packed.shape
    words = np.zeros((*outer, conv.depth, outputs, FOUR), np.int8)
    for word in range(conv.depth):
        first = min(word * FOUR, depth - FOUR)
        for channel in range(max(first, word * FOUR), first + FOUR):
            words[..., word, :, channel - first] = packed[..., channel, :]
    if conv.in_pairs:
        pairs = np.moveaxis(words.reshape(*words.shape[:-1], PAIRS_OF_WORD, TWO), -2, -3)
        rows = (*outer, conv.depth * conv.parts_of_word, outputs)
        return np.ascontiguousarray(pairs).view("<i2").reshape(rows)
    return np.ascontiguousarray(words).view("<i4")[..., 0]
