"""What has to be started before a device answers: an emulated board, a server that is pushed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from shuffledeploy.deploy.devices.board_process import HOST, Board, running_board
from shuffledeploy.deploy.devices.device_names import DeviceName
from shuffledeploy.deploy.phone.connected_phones import find_phone
from shuffledeploy.deploy.phone.phone_host import PhoneHost
from shuffledeploy.deploy.remote.pushed_server import RunningServer, ServerWishes, running_server
from shuffledeploy.deploy.remote.remote_host import RemoteHost
from shuffledeploy.deploy.remote.ssh_host import connect_ssh


@dataclass(frozen=True)
class Reached:
    """Where a device answers.

    Attributes
    ----------
    name : DeviceName
        Of kind ``rpc`` or ``tracker``; its text is what the user wrote.
    board : Board or None
        The emulated board that was started for it.
    server : RunningServer or None
        The server that was pushed and started for it.
    """

    name: DeviceName
    board: Board | None = None
    server: RunningServer | None = None

    def why_ended(self, patience_s: float) -> str | None:
        """Say why what was started has ended, None if it has not, or not in so many seconds."""
        if self.board and not self.board.is_running:
            return f"the emulated board died (process {self.board.pid})"
        return self.server.why_ended(patience_s) if self.server else None


@contextmanager
def reached(name: DeviceName, pinned_to: str | None = None) -> Iterator[Reached]:
    """Start what a device needs, for the length of a ``with`` block.

    Parameters
    ----------
    name : DeviceName
        Of any kind but ``local``.
    pinned_to : str, optional
        The core of a pushed server's sessions: ``big`` (if nothing is said), ``little``, a number,
        ``any``.

    Raises
    ------
    UsageError
        When a name is that of several phones.
    Failure
        When the device is not there, or what it needs cannot be started.
    """
    if name.kind == "emulated":
        with running_board(name.core) as board:
            yield Reached(_at(name, board.port), board=board)
    elif name.kind in ("rpc", "tracker"):
        yield Reached(name)
    else:
        host = host_of(name)
        wishes = ServerWishes(pinned_to) if pinned_to else ServerWishes()
        with (
            running_server(host, wishes) as server,
            host.forwarded(server.port) as port,
        ):
            yield Reached(_at(name, port), server=server)


def _at(name: DeviceName, port: int) -> DeviceName:
    return replace(name, kind="rpc", host=HOST, port=port)


def host_of(name: DeviceName) -> RemoteHost:
    """Find a device with a shell, of kind ``adb`` or ``ssh``."""
    if name.kind == "adb":
        return PhoneHost(find_phone(name.serial))
    return connect_ssh(name.text, name.user, name.host, name.port)
