"""Numbers of a command line, refused with what they have to be."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def number_option(
    kind: type[Number], holds: Callable[[Number], bool], wanted: str
) -> Callable[[str], Number]:
    """Give a ``type`` for argparse that takes the numbers for which a condition holds.

    Parameters
    ----------
    kind : type
        ``int`` or ``float``.
    holds : Callable
        Tells whether a number is taken.
    wanted : str
        What the user is told of any other text, such as ``must be a number above 0``.
    """

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(wanted) from None
        if not holds(value):
            raise argparse.ArgumentTypeError(wanted)
        return value

    return parse
