"""What every command says of the time that it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

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


def saying_what_is_left(say: Callable[[str], None], what: str) -> Callable[[int, int], None]:
    """Say now and then how far work is whose steps are alike, and how long it may go on.

    Parameters
    ----------
    say : Callable
        Says a line.
    what : str
        Name of a step.

    Returns
    -------
    Callable
        Takes how many steps are done, and of how many; the clock starts where none is.
    """
    began = said = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal began, said
        now = time.monotonic()
        if done == 0:
            began = said = now
        left = seconds_left(done, total, now - began)
        if left is not None and now - said >= LINE_EVERY_S:
            said = now
            say(f"{what} {done} of {total}, about {clock(left)} left")

    return tell
