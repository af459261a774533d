"""A user's picture becomes a network's input, and its logits become names and probabilities."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from shuffledeploy.compiler.bundle.arrays import Array
from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.bundle.manifest_entries import ImageStatistics
from shuffledeploy.model.errors import UsageError

#: ImageNet's evaluation: the shorter side to 256, the middle 224 of it (torchvision, the paper).
CROP = 224 / 256
TOP = 5
FORMATS = ("PNG", "JPEG")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class that a network believes in.

    Attributes
    ----------
    index : int
        Of the logit.
    name : str or None
        Of the class, where it is known.
    probability : float
        By softmax over the logits.
    """

    index: int
    name: str | None
    probability: float


def image_input(path: Path, manifest: Manifest) -> Array:
    """Read a PNG or JPEG and make of it what the network takes.

    An image that has the network's very size goes in as it is. Any other is scaled so that it
    covers the network's size (for a colour network 256/224 of it, as is usual for ImageNet), and
    its middle is taken. Then ``(x / 255 - mean) / std`` for each channel.

    Parameters
    ----------
    path : Path
        The picture. Its EXIF orientation is applied; transparency is dropped.
    manifest : Manifest
        Says what the network takes.

    Returns
    -------
    numpy.ndarray
        float32, ``(1, channels, height, width)``.

    Raises
    ------
    UsageError
        If the network takes no image, or the file is none.
    """
    shape = _image_shape(manifest)
    return picture_input(path, shape, _statistics(manifest, shape[0]))


def picture_input(path: Path, shape: tuple[int, int, int], of: ImageStatistics) -> Array:
    """Do the same for a network whose input and normalisation are known.

    Parameters
    ----------
    path : Path
        The picture.
    shape : tuple of int
        Channels, height, width.
    of : ImageStatistics
        Of each channel.

    Raises
    ------
    UsageError
        If the file is no picture, or the statistics are not of so many channels.
    """
    channels, height, width = shape
    if len(of.mean) != channels or len(of.std) != channels:
        raise UsageError(f"the normalisation does not fit {channels} channels")
    picture = _cover(_open(path, "L" if channels == 1 else "RGB"), height, width, channels)
    pixels = np.asarray(picture, np.float32).reshape(height, width, channels) / np.float32(255)
    normalised = (pixels - np.asarray(of.mean, np.float32)) / np.asarray(of.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[np.newaxis], np.float32)


def top_predictions(
    logits: Array, labels: Sequence[str] = (), count: int = TOP
) -> tuple[Prediction, ...]:
    """List the likeliest classes, the first one first.

    Parameters
    ----------
    logits : numpy.ndarray
        ``(1, classes)`` or ``(classes,)``.
    labels : sequence of str
        Names of the classes, where they have any.
    count : int
        How many to list at most.
    """
    row = np.asarray(logits, np.float64).reshape(-1)
    exponents = np.exp(row - row.max())
    probabilities = exponents / exponents.sum()
    named = labels if row.size == len(labels) else None
    return tuple(
        Prediction(int(i), named[i] if named else None, float(probabilities[i]))
        for i in np.argsort(-row, kind="stable")[:count]
    )


def _image_shape(manifest: Manifest) -> tuple[int, int, int]:
    tensors = manifest.inputs
    shape = tensors[0].shape if len(tensors) == 1 else ()
    if len(shape) != 4 or shape[0] != 1 or shape[1] not in (1, 3) or tensors[0].dtype != "float32":
        takes = ", ".join(f"{t.name} {t.shape} {t.dtype}" for t in tensors)
        raise UsageError(f"{manifest.network} takes no image: its inputs are {takes}")
    return shape[1], shape[2], shape[3]


def _statistics(manifest: Manifest, channels: int) -> ImageStatistics:
    found = manifest.normalisation
    if found is None:
        raise UsageError(
            f"the bundle of {manifest.network} does not say how its images are normalised:"
            " run it on its reference input, without --input"
        )
    if len(found.mean) != channels or len(found.std) != channels:
        raise UsageError(f"the bundle's normalisation does not fit {channels} channels")
    return found


def _open(path: Path, mode: str) -> Image.Image:
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file: give a PNG or JPEG")
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a picture of 90 to 180 million pixels: too many here as well.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Of no other kind: Pillow hands EPS to a program that runs what is in it.
            with Image.open(path, formats=FORMATS) as opened:
                picture = ImageOps.exif_transpose(opened)
                if picture.mode.startswith("I"):
                    # 16 bits a pixel, which Pillow would clip to 255 instead of scaling.
                    picture = Image.fromarray((np.asarray(picture) / 257).astype(np.uint8))
                return picture.convert(mode)
    except FileNotFoundError:
        raise UsageError(f"there is no image {path}") from None
    except UnidentifiedImageError:
        raise UsageError(f"{path} is not an image (PNG and JPEG are read)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UsageError(f"{path} is too large an image: more than 89 million pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow says SyntaxError of a broken PNG.
        raise UsageError(f"{path} cannot be read as an image: {error}") from None


def _cover(picture: Image.Image, height: int, width: int, channels: int) -> Image.Image:
    """Scale until the picture covers the network's size, then take the middle."""
    if picture.size == (width, height):
        return picture
    crop = 1.0 if channels == 1 else CROP
    scale = max(width / picture.width, height / picture.height) / crop
    size = (
        max(width, math.floor(picture.width * scale + 0.5)),
        max(height, math.floor(picture.height * scale + 0.5)),
    )
    if size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or size[0] * size[1]):
        raise UsageError(
            f"the image is {picture.width}x{picture.height}: too narrow a strip to be scaled"
            f" to {width}x{height}"
        )
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    scaled = picture.resize(size, Image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + width, top + height))
