"""Words out of a foreign file, made fit for one line of a terminal."""

from __future__ import annotations

LONGEST = 300


def printable_line(text: str) -> str:
    """Take the first line, at most `LONGEST` characters of it, and escape what is not printable.

    Parameters
    ----------
    text : str
        Any text: it may hold control characters that terminals obey.

    Returns
    -------
    str
        Empty for an empty text.
    """
    first = next(iter(text.strip().splitlines()), "")[:LONGEST]
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in first)
