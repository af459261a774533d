"""How far answers may be from PyTorch's, by the precision that a network computes in."""

from __future__ import annotations

import math

import numpy as np

from shuffledeploy.compiler.bundle.arrays import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF, INT8

#: Of float32: largest absolute error of a logit, for logits of order one (a few hundred layers'
#: rounding). Of half and int8: largest error in parts of the spread of an answer's elements. In
#: int8 it is three times that of the network of the zoo that is off most, MobileNet with 0.10; an
#: answer that has nothing to do with PyTorch's is off by 4.
TOLERANCES = {FLOAT: 1e-4, HALF: 5e-2, INT8: 0.3}
#: More in a manifest would excuse wrong answers.
LARGEST_TOLERANCES = {FLOAT: 1e-2, HALF: 0.1, INT8: 0.6}


def magnitude(values: Array) -> float:
    """Give the largest magnitude; 1 where it is not finite, so that it excuses nothing."""
    largest = float(np.max(np.abs(values.astype(np.float64)), initial=0.0))
    return largest if math.isfinite(largest) else 1.0


def spread(values: Array) -> float:
    """Give the standard deviation of all elements; the magnitude of one that is alone.

    What all logits have in common decides nothing, and half precision's errors are to be held
    against what does.
    """
    with np.errstate(invalid="ignore"):
        deviation = float(np.std(values.astype(np.float64))) if values.size > 1 else 0.0
    return deviation if 0 < deviation < math.inf else magnitude(values)


def error_unit(values: Array, precision: str) -> float:
    """Give what errors of an answer are told in parts of, by what the answer should be."""
    return magnitude(values) if precision == FLOAT else spread(values)


def tolerance_text(tolerance: float) -> str:
    """Write a tolerance: a power of ten and its factor, or a number of spreads."""
    return f"{tolerance:g}" if tolerance >= 0.1 else f"{tolerance:.0e}"


def allowed_error(unit: float, tolerance: float, precision: str) -> float:
    """Give the largest error that an answer may have, by the unit of its errors.

    Parameters
    ----------
    unit : float
        What :func:`error_unit` gives.
    tolerance : float
        Of the bundle. In float32 it is absolute for answers of order one and less, and grows with
        larger ones, for float32 rounds relative to magnitude.
    precision : str
        What the network computes in.
    """
    return tolerance * (max(1.0, unit) if precision == FLOAT else unit)
