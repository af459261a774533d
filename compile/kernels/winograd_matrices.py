"""The matrices of Winograd's way, weights that they transform, and what they save."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np
from numpy.polynomial.polynomial import polyfromroots

from shuffledeploy.compiler.ir.graph import Array

# Height and width of an output tile (m): smaller ones save less and move more memory, larger ones
# round more.
STEP = 4


def _with_opposites(*points: Fraction) -> tuple[Fraction, ...]:
    """List zero, and each point with its opposite: half of a transform's products are then zero."""
    return (Fraction(0), *(sign * point for point in points for sign in (1, -1)))


# Where the polynomials of a window are taken, beside infinity: of small eighths, which float32
# holds exactly, those that round least. With Lavin and Gray's 0, 1, -1, 2, -2 a 3x3 layer has twice
# the error (root mean square, of drawn layers of 48 channels); with the sums of a deep network that
# is what parity allows.
POINTS = {
    3: _with_opposites(Fraction(5, 8), Fraction(3, 2)),
    5: _with_opposites(Fraction(1), Fraction(2), Fraction(1, 2)),
}
WINDOWS = tuple(POINTS)


def tile_of(window: int) -> int:
    """Extent of the input tile of `STEP` outputs."""
    return STEP + window - 1


@functools.cache
def matrices(window: int, points: tuple[Fraction, ...] | None = None) -> tuple[Array, Array, Array]:
    """Compute A^T ``(m, n)``, G ``(n, r)`` and B^T ``(n, n)`` for some points and infinity.

    Toom and Cook's products of polynomials, transposed into a filter. Products of the points are
    exact in float64, and those of A^T and B^T in float32.
    """
    size = tile_of(window)
    points = points or POINTS[window]
    a = np.zeros((STEP, size))
    g = np.zeros((size, window))
    b = np.zeros((size, size))
    for column, point in enumerate(points):
        others = [other for other in points if other != point]
        scale = math.prod(point - other for other in others)
        a[:, column] = [float(point**power) for power in range(STEP)]
        g[column] = [float(point**power / scale) for power in range(window)]
        b[column, : size - 1] = polyfromroots(np.array(others, float))
    a[STEP - 1, size - 1] = 1.0
    g[size - 1, window - 1] = 1.0
    b[size - 1] = polyfromroots(np.array(points, float))
    return a, g, b


def transform_weight(weight: Array) -> Array:
    """Transform weights ``(r, r, K, O)`` to those of a pointwise convolution of n * n groups.

    Returns
    -------
    Array
        ``(1, 1, K, n * n * O)``, float32; computed in float64.
    """
    window = weight.shape[0]
    _, g, _ = matrices(window)
    wide = np.einsum("ai,bj,ijko->abko", g, g, weight.astype(np.float64), optimize=True)
    depth, outputs = weight.shape[2:]
    rows = wide.reshape(-1, depth, outputs).transpose(1, 0, 2)
    return rows.reshape(1, 1, depth, -1).astype(np.float32)


def saves(window: int, height: int, width: int) -> float:
    """Divide the direct form's multiplications by this one's, for an output of that size."""
    tiles = -(-height // STEP) * -(-width // STEP)
    return height * width * window**2 / (tiles * tile_of(window) ** 2)
