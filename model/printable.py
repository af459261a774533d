"""Words out of a foreign file or machine, made fit for a terminal."""

from __future__ import annotations

LONGEST_LINE = 300


def printable(text: object) -> str:
    r"""Write what could steer a terminal (an escape, a carriage return) as ``\x1b``; keep lines."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1]
        for letter in str(text)
    )


def printable_line(text: object) -> str:
    """Take the first line, at most `LONGEST_LINE` characters of it; empty for an empty text."""
    return printable(next(iter(str(text).strip().splitlines()), "")[:LONGEST_LINE])
