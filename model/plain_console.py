"""Terminals: what comes from a file, a board or a path is text, never markup or a command."""

from __future__ import annotations

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """Make a console on which ``[/x]`` in a text is just that; styles go beside a text."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
