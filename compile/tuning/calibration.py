"""Inputs from which a network learns how large its numbers get: a folder of pictures, or a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from shuffledeploy.compiler.bundle.arrays import read_rows
from shuffledeploy.compiler.bundle.manifest_entries import ImageStatistics, Tensor
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.model.errors import UsageError

#: More bring nothing.
MOST_INPUTS = 500
#: Makes of a picture what a network of (channels, height, width) takes.
ReadPicture = Callable[[Path, tuple[int, int, int], ImageStatistics], Array]
_PICTURES = (".png", ".jpg", ".jpeg")


def calibration_inputs(
    path: Path, inputs: tuple[Tensor, ...], statistics: ImageStatistics | None, read: ReadPicture
) -> list[list[Array]]:
    """Read the inputs that `--calibrate` names.

    Parameters
    ----------
    path : Path
        A folder of pictures (PNG, JPEG), or an ``.npz`` with one float32 array of inputs.
    inputs : tuple of Tensor
        What the network takes: one tensor.
    statistics : ImageStatistics, optional
        Of its pictures; needed for a folder.
    read : Callable
        Makes an input of a picture.

    Returns
    -------
    list
        The network's inputs for each of at most `MOST_INPUTS` runs.

    Raises
    ------
    UsageError
        If there is none, or one is not what the network takes.
    """
    if len(inputs) != 1 or inputs[0].dtype != "float32":
        raise UsageError("--calibrate goes with a network of one float32 input")
    shape = inputs[0].shape
    if path.is_dir():
        found = _pictures(path, shape, statistics, read)
    else:
        found = _array(path, shape)
    if not all(np.isfinite(values).all() for values in found):
        raise UsageError(f"--calibrate: {path} holds numbers that are none")
    return [[values] for values in found[:MOST_INPUTS]]


def _pictures(
    path: Path, shape: tuple[int, ...], statistics: ImageStatistics | None, read: ReadPicture
) -> list[Array]:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)
    if not files:
        raise UsageError(f"--calibrate: {path} has no pictures (PNG or JPEG)")
    if len(shape) != 4 or shape[0] != 1 or statistics is None:
        raise UsageError(
            f"--calibrate: an input of shape {shape} is no picture of known --mean and --std: give"
            " an .npz of inputs"
        )
    return [read(file, (shape[1], shape[2], shape[3]), statistics) for file in files[:MOST_INPUTS]]


def _array(path: Path, shape: tuple[int, ...]) -> list[Array]:
    inside = shape[1:] if shape[:1] == (1,) else shape
    try:
        rows = read_rows(path, inside, FLOAT, MOST_INPUTS)
    except FileNotFoundError:
        raise UsageError(f"--calibrate: there is no folder or file {path}") from None
    except ValueError as error:
        raise UsageError(f"--calibrate: {path} is no .npz of inputs: {error}") from error
    return [row.reshape(shape) for row in rows]
