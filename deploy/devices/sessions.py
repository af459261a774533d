"""RPC sessions that end: TVM waits for ever for a board that hangs, these do not."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tvm import rpc

from shuffledeploy.deploy.devices.device_names import DeviceName
from shuffledeploy.deploy.devices.time_limits import within
from shuffledeploy.deploy.devices.trackers import Tracker
from shuffledeploy.deploy.devices.tvm_rpc_edges import (
    CLOSE_SESSION,
    is_refused,
    is_session_time_out,
    is_time_out,
    is_unknown_host,
)
from shuffledeploy.model.errors import Failure

CONNECT_S = 20.0


@dataclass(frozen=True)
class Connection:
    """A session with a board.

    Attributes
    ----------
    session : tvm.rpc.RPCSession
        TVM's session.
    peer : socket.socket or None
        Our handle on the session's socket, by which its end is noticed.
    timeout_s : float
        How long a call may take.
    """

    session: rpc.RPCSession
    peer: socket.socket | None
    timeout_s: float

    @property
    def address(self) -> str:
        """Where the board is, ``HOST:PORT``; empty where it cannot be told."""
        try:
            host, port = self.peer.getpeername()[:2] if self.peer else ("", "")
        except OSError:
            return ""
        return f"{host}:{port}" if host else ""


# A session's socket is found by what was not there before: one connects at a time.
_CONNECTING = threading.Lock()


def connect_board(name: DeviceName, timeout_s: float) -> Connection:
    """Connect to ``rpc://`` or through ``tracker://``.

    Parameters
    ----------
    name : DeviceName
        The board.
    timeout_s : float
        How long any one call may take.

    Returns
    -------
    Connection
        The session, with that time-out on its socket and on the server.

    Raises
    ------
    Failure
        When nobody listens, the board is busy or hangs, or the tracker has no such board.
    """
    with _CONNECTING:
        return _connect(name, timeout_s)


def _connect(name: DeviceName, timeout_s: float) -> Connection:
    before = _sockets()
    # The server's own limit is on the whole session: it only ends sessions that nobody ends.
    limit = max(3600.0, 10 * timeout_s)
    if name.kind == "tracker":
        session = _within(CONNECT_S, name, lambda: Tracker(name).request(limit))
    else:
        session = _within(
            CONNECT_S, name, lambda: rpc.connect(name.host, name.port, session_timeout=limit)
        )
    peer = _new_socket(before)
    if peer:
        # TVM's blocking receive then returns with an error instead of waiting for ever.
        seconds = int(timeout_s)
        value = struct.pack("ll", seconds, int((timeout_s - seconds) * 1e6))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
    return Connection(session, peer, timeout_s)


def close(connection: Connection) -> None:
    """End a session, so that the board serves the next one."""
    with contextlib.suppress(Exception):
        connection.session.get_function(CLOSE_SESSION)()
    if connection.peer:
        with contextlib.suppress(OSError):
            connection.peer.shutdown(socket.SHUT_RDWR)
        connection.peer.close()


def why_lost(connection: Connection, error: Exception) -> str | None:
    """Return why a session is lost, None if the error was none of the connection's."""
    if is_time_out(error):
        return f"did not answer within {connection.timeout_s:g} s"
    if is_session_time_out(error):
        return "the session took too long and the board ended it"
    if connection.peer and _is_closed(connection.peer):
        return "the connection was lost: the board died, or its session crashed"
    return None


def _within(
    seconds: float, name: DeviceName, connect: Callable[[], rpc.RPCSession]
) -> rpc.RPCSession:
    """Begin a session, or say why there is none."""
    try:
        return within(seconds, connect, lambda session: close(Connection(session, None, 0)))
    except TimeoutError:
        raise Failure(
            f"{name.text}: no session within {seconds:.0f} s; the board hangs, or serves"
            " another session: end that one, or restart the board"
        ) from None
    except Exception as error:
        # What a peer that is no board makes TVM's client raise is not to be foreseen.
        raise _as_failure(name, error) from error


def _as_failure(name: DeviceName, error: Exception) -> Failure:
    """Say what a failed connection means."""
    if isinstance(error, Failure):
        return error
    text = str(error).strip()
    address = f"{name.host}:{name.port}"
    if is_unknown_host(error):
        return Failure(f"{name.text}: there is no host named {name.host}")
    if is_refused(error):
        return Failure(
            f"{name.text}: nothing listens at {address}; start a board there with"
            " 'python -m tvm.exec.rpc_server', or an emulated one with 'deploy/device.py start'"
        )
    last = text.splitlines()[-1] if text else type(error).__name__
    return Failure(f"{name.text}: {address} is no RPC board that can be used: {last}")


def _sockets() -> dict[str, int]:
    """Return this process's open sockets by inode."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 (a Path stat would follow the link)
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")  # noqa: PTH115
            if target.startswith("socket:"):
                found[target] = int(entry)
    return found


def _new_socket(before: dict[str, int]) -> socket.socket | None:
    """Return a handle on the connected socket that was opened since: TVM does not show its own."""
    for inode, descriptor in _sockets().items():
        if inode not in before:
            with contextlib.suppress(OSError):
                handle = socket.socket(fileno=os.dup(descriptor))
                handle.getpeername()
                return handle
    return None


def _is_closed(peer: socket.socket) -> bool:
    """Whether the other side hung up; gives a dying board a second to do so."""
    deadline = time.monotonic() + 1.0
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([peer], [], [], left)[0]:
            return False
        try:
            return not peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        except OSError:
            return True
    return False
