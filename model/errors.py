"""The two ways a command ends badly, and the one place that turns them into an exit status."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shuffledeploy.model.printable import printable

USAGE_STATUS = 2
FAILURE_STATUS = 1
INTERRUPTED_STATUS = 130
TERMINATED_STATUS = 143


class UsageError(ValueError):
    """What the user asked for cannot be done; the message says what, where, and what to do."""


class Failure(RuntimeError):
    """The request was sound and the work failed (a device died, parity does not hold...)."""


def program_name(script: str) -> str:
    """Name a command in its help: by its script, or as a part of ``shuffledeploy``."""
    return sys.argv[0] if sys.argv[0].startswith("shuffledeploy ") else script


class _Terminated(SystemExit):
    """SIGTERM came."""


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, so that nothing is left behind."""

    def end(*_: object) -> None:
        raise _Terminated(TERMINATED_STATUS)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except _Terminated:
        # All is cleaned up. Threads may still be in TVM, which Python would take down under them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(TERMINATED_STATUS)
    finally:
        signal.signal(signal.SIGTERM, before)


def command(main: Callable[[list[str] | None], int]) -> Callable[[list[str] | None], int]:
    """Wrap a command so that a user's mistake prints one line and never a stack trace.

    Parameters
    ----------
    main : Callable
        Takes the argument list (``None`` for ``sys.argv``), returns the exit status.

    Returns
    -------
    Callable
        The same command: a :class:`UsageError` becomes status 2, a :class:`Failure` status 1,
        Ctrl-C status 130, SIGTERM status 143 with everything cleaned up, a closed pipe
        (``| head``) status 0.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            with _terminated_in_order():
                return main(argv)
        except UsageError as error:
            print(f"error: {printable(error)}", file=sys.stderr)
            return USAGE_STATUS
        except Failure as error:
            print(f"failed: {printable(error)}", file=sys.stderr)
            return FAILURE_STATUS
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED_STATUS
        except BrokenPipeError:
            # Python flushes stdout at exit: point it at nothing, or it complains there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return wrapped
