"""Where a score comes from: the one thing about tuning that depends on a device.

A score is a positive number for one warmed call of a kernel, lower is better. Its `source` is
written into every record; scores of different sources are never compared or mixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


@dataclasses.dataclass(frozen=True)
class KernelObject:
    """A candidate that was built.

    Attributes
    ----------
    path : Path
        Its relocatable object, for the target.
    symbol : str
        Entry point, in TVM's calling convention.
    arguments : tuple
        Shape and data type of each tensor it takes, outputs included.
    """

    path: Path
    symbol: str
    arguments: tuple[tuple[tuple[int, ...], str], ...]


class Score(Protocol):
    """Scores built candidates on some device.

    Attributes
    ----------
    source : str
        What gave the score and how, with versions: part of a record's provenance.
    unit : str
        Such as ``instructions`` or ``ns``.
    """

    source: str
    unit: str

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Return a score for each kernel, or in its place why it has none."""
