"""Terminals: what comes from a file, a board or a path is text, never markup or a command."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """Make a console on which ``[/x]`` in a text is just that; styles go beside a text."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def telling_console(tell: Callable[[str], None]) -> Console:
    """Make a console that hands each line to a function and prints nothing."""
    return Console(
        file=_Lines(tell), markup=False, emoji=False, highlight=False, width=200,
        force_terminal=False,
    )  # fmt: skip


class _Lines(io.StringIO):
    """A file that hands on each line that was written."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._tell(line.strip())
        return len(text)
