"""The two ways a command ends badly, and the one place that turns them into an exit status."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

from shuffledeploy.model.garbage_collection import collect_seldom
from shuffledeploy.model.printable import printable

USAGE_STATUS = 2
FAILURE_STATUS = 1
INTERRUPTED_STATUS = 130


class UsageError(ValueError):
    """What the user asked for cannot be done; the message says what, where, and what to do."""


class Failure(RuntimeError):
    """The request was sound and the work failed (a device died, parity does not hold...)."""


def program_name(script: str) -> str:
    """Name a command in its help: by its script, or as a part of ``shuffledeploy``."""
    return sys.argv[0] if sys.argv[0].startswith("shuffledeploy ") else script


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
        Ctrl-C status 130, a closed pipe (``| head``) status 0. A signal ends it at once: what it
        started and its scratch folders go with it (`model.scratch`).
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        collect_seldom()
        try:
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
