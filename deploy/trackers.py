"""A TVM tracker: which boards it has, how many of them are free, a session with one of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tvm import rpc

from deploy.device_names import DeviceName
from model.errors import Failure

ANSWERS_WITHIN_S = 10.0


class Tracker:
    """The boards of one key at a tracker; a connection for each question, so none is stale.

    Parameters
    ----------
    name : DeviceName
        Of kind ``tracker``.
    """

    def __init__(self, name: DeviceName) -> None:
        self._name = name

    def require_boards(self) -> None:
        """See to it that there are boards, free or not.

        Raises
        ------
        Failure
            No tracker answers, or it has no board under the key; the message has its keys.
        """
        with self._connected() as tracker:
            self._require(tracker)

    def free(self) -> int:
        """Tell how many boards wait for work; 0 where the tracker does not answer just now."""
        try:
            with self._connected() as tracker:
                queue = tracker.summary()["queue_info"].get(self._name.key, {})
                return max(0, int(queue.get("free", 0)) - int(queue.get("pending", 0)))
        except (Failure, OSError, RuntimeError):
            return 0

    def request(self, limit_s: float) -> rpc.RPCSession:
        """Wait for a board and begin a session with it.

        Parameters
        ----------
        limit_s : float
            After which the board ends the session.

        Raises
        ------
        Failure
            As :meth:`require_boards`.
        """
        with self._connected() as tracker:
            self._require(tracker)
            return tracker.request(self._name.key, session_timeout=limit_s, max_retry=1)

    def _require(self, tracker: rpc.TrackerSession) -> None:
        servers = tracker.summary()["server_info"]
        keys = sorted({str(server["key"]).removeprefix("server:") for server in servers})
        if self._name.key not in keys:
            known = f"it has {', '.join(keys)}" if keys else "no board is registered there"
            raise Failure(
                f"{self._name.text}: the tracker has no board with key '{self._name.key}'; {known}"
            )

    @contextmanager
    def _connected(self) -> Iterator[rpc.TrackerSession]:
        name = self._name
        try:
            # TVM's own client retries a refused connection for a minute.
            socket.create_connection((name.host, name.port), timeout=ANSWERS_WITHIN_S).close()
            tracker = rpc.connect_tracker(name.host, name.port)
        except socket.gaierror:
            raise Failure(f"{name.text}: there is no host named {name.host}") from None
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise Failure(
                f"{name.text}: no tracker answers at {name.host}:{name.port} ({reason}); start one"
                " with 'python -m tvm.exec.rpc_tracker'"
            ) from error
        try:
            yield tracker
        finally:
            tracker.close()
