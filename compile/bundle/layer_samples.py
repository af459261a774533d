"""Which elements of what a kernel wrote are held against PyTorch's tensor of the same layer."""

from __future__ import annotations

import numpy as np

from shuffledeploy.compiler.bundle.arrays import Array

#: Pixels of a feature map that are looked at, with all of their channels.
ROWS = 64
#: Elements of these that a bundle keeps.
LAYER_SAMPLES = 1024
# The golden ratio: its multiples fall evenly into any interval.
_GOLDEN = (5**0.5 - 1) / 2


def layer_rows(values: Array) -> Array:
    """Pick evenly spread pixels of a tensor whose channels stand last.

    Parameters
    ----------
    values : Array
        Any shape; axes of one element are passed over, the last of the others are channels.

    Returns
    -------
    Array
        At most `ROWS` pixels by channels.
    """
    extents = [extent for extent in values.shape if extent != 1]
    pixels = values.reshape(-1, extents[-1] if extents else 1)
    return pixels[_spread(len(pixels), ROWS)]


def layer_sample(rows: Array) -> Array:
    """Pick at most `LAYER_SAMPLES` evenly spread elements of what :func:`layer_rows` gave."""
    flat = rows.reshape(-1)
    return flat[_spread(flat.size, LAYER_SAMPLES)].copy()


def _spread(size: int, most: int) -> Array:
    """Give places that lie nearly evenly, and not at one distance: that would meet few channels."""
    if size <= most:
        return np.arange(size)
    return np.unique((np.arange(most) * _GOLDEN % 1 * size).astype(np.int64))
