"""Calls of TVM that wait for ever, waited for no longer than is sensible."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
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
    outcome: futures.Future[Result] = futures.Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except Exception as error:
            outcome.set_exception(error)

    def give_late(came: futures.Future[Result]) -> None:
        if came.exception() is None:
            late(came.result())

    threading.Thread(target=run, daemon=True).start()
    done, _ = futures.wait([outcome], seconds)
    if not done:
        # Called at once where the result came in this very moment.
        outcome.add_done_callback(give_late)
        raise TimeoutError
    return outcome.result()
