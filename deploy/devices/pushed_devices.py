"""Devices to which our server is pushed, as boards that listen on a port of this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shuffledeploy.deploy.devices.device_names import DeviceName, require_core
from shuffledeploy.deploy.phone.connected_phones import find_phone
from shuffledeploy.deploy.phone.phone_host import PhoneHost
from shuffledeploy.deploy.remote.pushed_server import (
    RunningServer,
    ServerWishes,
    running_server,
)
from shuffledeploy.deploy.remote.remote_host import RemoteHost

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class ServedDevice:
    """A device on which our server runs.

    Attributes
    ----------
    name : DeviceName
        Of kind ``rpc``: where its port is reached; its text is the one that the user wrote.
    server : RunningServer or None
        The server, where it was started for this.
    """

    name: DeviceName
    server: RunningServer | None = None


def remote_host(name: DeviceName) -> RemoteHost:
    """Find the device of a name with `is_pushed_to`.

    Raises
    ------
    UsageError
        If the name is that of several devices.
    Failure
        If the device is not there.
    """
    return PhoneHost(find_phone(name.serial))


@contextmanager
def served(name: DeviceName, core: str | None = None) -> Iterator[ServedDevice]:
    """Give a device by which it is reached for the length of a block; others stay as they are.

    Parameters
    ----------
    name : DeviceName
        The device.
    core : str, optional
        Where its sessions run, as `ServerWishes`; the fastest core where nothing is said.

    Raises
    ------
    UsageError
        If no session can be pinned to that core, or the name is that of several devices.
    Failure
        If the device is not there, or cannot run the server.
    """
    require_core(core, name)
    if not name.is_pushed_to:
        yield ServedDevice(name)
        return
    host = remote_host(name)
    wishes = ServerWishes() if core is None else ServerWishes(core)
    with running_server(host, wishes) as server, host.forwarded(server.port) as port:
        reached = dataclasses.replace(name, kind="rpc", host=_LOOPBACK, port=port)
        yield ServedDevice(reached, server)
