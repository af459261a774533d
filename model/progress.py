"""What every command says of the time that it takes."""

from __future__ import annotations

import math

#: Seconds between two lines where nobody can see a table change, such as in a file.
LINE_EVERY_S = 15.0


def seconds_left(
    spent: int, total: int | None, elapsed: float, seconds: float = math.inf
) -> float | None:
    """Tell how long work may go on: until its steps or its time are spent; None if unknown."""
    by_time = max(0.0, seconds - elapsed)
    by_steps = math.inf
    if total is not None and spent:
        by_steps = elapsed / spent * max(0, total - spent)
    left = min(by_time, by_steps)
    return None if math.isinf(left) else left


def clock(seconds: float) -> str:
    """Write a time in minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
