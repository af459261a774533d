"""Outputs that fill no whole vectors are computed in parts that nearly do, on x86.

Before::

    y[p, 0:116] = x[p] W[:, 0:116]                      # 29 vectors of 4 lanes

After::

    y[p, 0:58] = x[p] W[:, 0:58]                        # 3 vectors of 16 lanes, and 10 lanes
    y[p, 58:116] = x[p] W[:, 58:116]

A tile has all of a part's outputs. Of all 116 their sums would leave registers for two pixels, and
two pixels alone would read the whole weight: its vectors come from memory more often than sums are
computed. A part is a group of the kernel; all groups read the same channels.
"""

from __future__ import annotations

import dataclasses

from shuffledeploy.compiler.ir.memory_layout import FLOAT, FLOAT_BYTES
from shuffledeploy.compiler.kernels.convolution_shape import Convolution
from shuffledeploy.compiler.kernels.tiling import FEW_VECTORS, MOST_PIXELS_IN_TILE, Core, divisors

# Bytes of a part's weights that stay beside the core.
FIRST_CACHE = 1 << 15


def in_parts(conv: Convolution, core: Core) -> Convolution:
    """Cut a dense layer's outputs into parts; others stay as they are."""
    outputs, lanes = conv.group_outputs, core.lanes
    few = outputs <= FEW_VECTORS * lanes or outputs % lanes == 0
    one_pixel = conv.output_height * conv.output_width == 1
    if core.multiplies_by_lane or core.element != FLOAT or conv.groups > 1 or few or one_pixel:
        return conv
    depth = conv.group_inputs * conv.kernel[0] * conv.kernel[1]
    parts = min(divisors(outputs, outputs), key=lambda count: _cost(depth, outputs, count, core))
    return dataclasses.replace(
        conv, groups=parts, group_outputs=outputs // parts, lanes=lanes, reads_all=parts > 1
    )


def _cost(depth: int, outputs: int, parts: int, core: Core) -> float:
    """Count multiply-adds of vectors for each that is needed, and loads, half as dear.

    Loads of weights that the first cache does not hold from one tile to the next count twice.
    """
    vectors = -(-outputs // (parts * core.lanes))
    pixels = min((core.registers - 1 - vectors) // vectors, MOST_PIXELS_IN_TILE)
    if pixels < 1:
        return float("inf")
    padded = vectors * core.lanes * parts / outputs
    weights = depth * vectors * core.lanes * FLOAT_BYTES
    far = 2 if weights > FIRST_CACHE else 1
    return padded * (1 + (1 / vectors + far / pixels) / 2)
