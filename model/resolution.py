"""Sizes of images as a command line gives them and a table shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shuffledeploy.model.errors import UsageError


def parse_resolution(text: str) -> tuple[int, int]:
    """Read ``HxW``, or one side of a square, as a command line gives it.

    Raises
    ------
    UsageError
        The text is neither.
    """
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text.strip())
    if not match:
        raise UsageError(f"a resolution reads HEIGHTxWIDTH, such as 480x640, not {text!r}")
    return int(match[1]), int(match[2] or match[1])


def write_resolution(size: Sequence[int]) -> str:
    """Write a height and a width as ``HxW``: what :func:`parse_resolution` reads."""
    return "x".join(map(str, size))
