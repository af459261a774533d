"""A TVM tracker: which boards it has, how many of them are free, a session with one of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from tvm import rpc

from shuffledeploy.deploy.devices.device_names import DeviceName
from shuffledeploy.deploy.devices.time_limits import within
from shuffledeploy.model.errors import Failure

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
        keys = sorted({server.key.removeprefix("server:") for server in self._ask().server_info})
        if self._name.key not in keys:
            known = f"it has {', '.join(keys)}" if keys else "no board is registered there"
            raise Failure(
                f"{self._name.text}: the tracker has no board with key '{self._name.key}'; {known}"
            )

    def free(self) -> int:
        """Tell how many boards wait for work; 0 where the tracker does not answer just now."""
        try:
            queue = self._ask().queue_info.get(self._name.key, _Queue())
        except Failure:
            return 0
        return max(0, queue.free - queue.pending)

    def request(self, limit_s: float) -> rpc.RPCSession:
        """Wait for a board and begin a session with it (`deploy.devices.sessions` limits how long).

        Parameters
        ----------
        limit_s : float
            After which the board ends the session.

        Raises
        ------
        Failure
            As :meth:`require_boards`.
        """
        self.require_boards()
        with _connected(self._name) as tracker:
            return tracker.request(self._name.key, session_timeout=limit_s, max_retry=1)

    def _ask(self) -> _Summary:
        """Ask a tracker what it has.

        Raises
        ------
        Failure
            If none answers in time, or answers what no tracker does.
        """
        name = self._name

        def ask() -> object:
            with _connected(name) as tracker:
                return tracker.summary()

        try:
            answer = within(ANSWERS_WITHIN_S, ask)
        except Failure:
            raise
        except TimeoutError:
            raise Failure(
                f"{name.text}: {name.host}:{name.port} does not answer within"
                f" {ANSWERS_WITHIN_S:.0f} s: no tracker, or one that hangs"
            ) from None
        except Exception as error:
            # What a peer that is no tracker makes TVM's client raise is not to be foreseen.
            raise Failure(f"{name.text}: {name.host}:{name.port} is no tracker: {error}") from error
        try:
            return msgspec.convert(answer, _Summary)
        except msgspec.ValidationError as error:
            raise Failure(f"{name.text}: the tracker's answer cannot be: {error}") from error


class _Server(msgspec.Struct):
    """A board as a tracker lists it."""

    key: Annotated[str, msgspec.Meta(pattern=r"^[\w.+:-]{1,200}$")]


class _Queue(msgspec.Struct):
    """Boards of a key that wait for work, and who waits for one."""

    free: int = 0
    pending: int = 0


class _Summary(msgspec.Struct):
    """What a tracker has."""

    server_info: list[_Server]
    queue_info: dict[str, _Queue] = {}


@contextmanager
def _connected(name: DeviceName) -> Iterator[rpc.TrackerSession]:
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
