"""The images from which other engines' quantisers learn how large a network's numbers get.

Imports nothing of this project: converters with a Python of their own use it, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: As many as our own compiler takes where nobody gives it any; the bundle's questions are others.
IMAGES, SEED = 8, 1000


def calibration_images(shape: tuple[int, ...]) -> list[Any]:
    """Draw images of standard normal noise, float32, of a network's shape."""
    return [
        np.random.default_rng(SEED + place).standard_normal(shape, np.float32)
        for place in range(IMAGES)
    ]
