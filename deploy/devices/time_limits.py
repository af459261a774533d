"""Calls of TVM that wait for ever, waited for no longer than is sensible."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def within(
    seconds: float, work: Callable[[], Result], late: Callable[[Result], None] = lambda _: None
) -> Result:
    """Run a blocking call in a thread, and stop waiting for it after a while.

    Parameters
    ----------
    seconds : float
        How long to wait.
    work : Callable
        What is called.
    late : Callable
        Given what came when nobody waited for it any longer.

    Raises
    ------
    TimeoutError
        If nothing came.
    Exception
        Whatever the call raised.
    """
    results: list[Result] = []
    errors: list[Exception] = []
    abandoned = threading.Event()

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            errors.append(error)
            return
        results.append(result)
        if abandoned.is_set():
            late(result)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        abandoned.set()
        raise TimeoutError
    if errors:
        raise errors[0]
    return results[0]
