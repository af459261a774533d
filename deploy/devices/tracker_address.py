"""Where a tracker listens, found out without TVM."""

from __future__ import annotations

import socket

from shuffledeploy.model.errors import Failure, UsageError

_ANSWERS_S = 5.0


def parse_tracker(text: str) -> tuple[str, int]:
    """Take a tracker's address apart; return host and port.

    Raises
    ------
    UsageError
        If it is no ``HOST:PORT``.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"'{text}' is no tracker; give HOST:PORT")
    return host, int(port)


def require_tracker(text: str) -> None:
    """See to it that something listens at a tracker's address.

    Raises
    ------
    UsageError
        If it is no ``HOST:PORT``.
    Failure
        If nothing answers there.
    """
    try:
        socket.create_connection(parse_tracker(text), timeout=_ANSWERS_S).close()
    except OSError as error:
        raise Failure(
            f"no tracker answers at {text} ({error}); start one with"
            " 'python -m tvm.exec.rpc_tracker'"
        ) from error
