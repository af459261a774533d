"""What a user tells of a network's pictures: names of classes, and how pixels are normalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.printable import LONGEST_LINE, printable
from shuffledeploy.model.registry import Normalisation

#: Of a file of labels, in bytes; ImageNet's has 31 KB.
LARGEST_LABELS = 1 << 20


def read_labels(path: Path) -> tuple[str, ...]:
    """Read the names of a network's classes, one a line, in the order of its logits.

    Parameters
    ----------
    path : Path
        A text in UTF-8.

    Raises
    ------
    UsageError
        It is no regular file, too large, no text, or a line is empty or too long.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file of labels")
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_LABELS + 1)
        lines = content.decode("utf-8").rstrip().splitlines()
    except FileNotFoundError:
        raise UsageError(f"there is no file of labels at {path}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text in UTF-8: labels stand in it one a line") from None
    if len(content) > LARGEST_LABELS:
        raise UsageError(f"{path} is too large for labels: more than {LARGEST_LABELS >> 20} MiB")
    labels = tuple(printable(line.strip()) for line in lines)
    for number, label in enumerate(labels, start=1):
        if not 1 <= len(label) <= LONGEST_LINE:
            raise UsageError(f"{path}: line {number} is no label of 1 to {LONGEST_LINE} letters")
    if not labels:
        raise UsageError(f"{path} holds no label")
    return labels


def normalisation_of(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> Normalisation | None:
    """Take what a command line says of mean and standard deviation; None where it says nothing.

    Raises
    ------
    UsageError
        One is given without the other, they differ in length, or hold what cannot be.
    """
    if mean is None and std is None:
        return None
    if mean is None or std is None or len(mean) != len(std):
        raise UsageError("--mean and --std go together, with a number for each channel of both")
    if not all(map(math.isfinite, mean)) or not all(0 < value < math.inf for value in std):
        raise UsageError("--mean takes finite numbers, and --std takes numbers above 0")
    return Normalisation(tuple(mean), tuple(std))
