"""Which phone is meant: by its serial, or the only one there is."""

from __future__ import annotations

import os
import re
import socket
import time

from shuffledeploy.deploy.phone.adb_client import (
    GONE,
    SERVER_PORT,
    AdbClient,
    ListedPhone,
    PhoneLink,
    list_connected,
)
from shuffledeploy.deploy.phone.adb_program import find_adb
from shuffledeploy.deploy.phone.emulated_phone.phone_process import PhoneProcess, list_phones
from shuffledeploy.deploy.phone.shared_server import mark_as_ours, use_until_our_end
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.printable import printable_line

_PROBE_S = 2.0
_NONE = (
    "adb sees no phone: plug one in and enable USB debugging on it, or start an emulated one with"
    " 'deploy/device.py start --phone'"
)


def find_phone(serial: str = "") -> PhoneLink:
    """Return the phone of a serial number, or the only one.

    Emulated phones are found at the adb servers of their own, others at the user's.

    Raises
    ------
    UsageError
        If none is named and there are several; names them.
    Failure
        If there is no adb or no such phone, or the phone cannot be used; says what to do.
    """
    emulated = {phone.serial: phone for phone in list_phones()}
    if serial in emulated:
        return _usable(_client_of(emulated[serial]), serial)
    if serial:
        users = _users_client()
        if any(phone.serial == serial for phone in list_connected(users)):
            return _usable(users, serial)
        known = ", ".join(link.name for link in find_phones())
        raise Failure(f"adb:{serial} is not there; " + (f"there is {known}" if known else _NONE))
    listed = _listed()
    # One that is not authorized is plugged in all the same: nobody else's phone is taken for it.
    found = [(client, phone) for client, phone in listed if not phone.is_offline] or listed
    if len(found) > 1:
        names = ", ".join(f"adb:{phone.serial}" for _, phone in found)
        raise UsageError(f"there are {len(found)} phones: name one of {names}")
    if not found:
        raise Failure(_NONE)
    ((client, phone),) = found
    if not phone.is_usable:
        raise _unusable(phone)
    return PhoneLink(client, phone.serial)


def find_phones() -> list[PhoneLink]:
    """Return all phones that can be used, emulated ones first.

    Raises
    ------
    Failure
        If there is no adb.
    """
    return [PhoneLink(client, phone.serial) for client, phone in _listed() if phone.is_usable]


def _listed() -> list[tuple[AdbClient, ListedPhone]]:
    """Return all phones, usable or not, with what reaches them."""
    found: list[tuple[AdbClient, ListedPhone]] = []
    for emulated in list_phones():
        client = _client_of(emulated)
        try:
            found += [(client, phone) for phone in list_connected(client)]
        except Failure:
            # One that ends is not there, and its adb server may go first.
            if not _ends_soon(emulated):
                raise
    users = _users_client()
    return [*found, *((users, phone) for phone in list_connected(users))]


def _ends_soon(phone: PhoneProcess) -> bool:
    deadline = time.monotonic() + _PROBE_S
    while phone.is_running and time.monotonic() < deadline:
        time.sleep(0.05)
    return not phone.is_running


def _users_client() -> AdbClient:
    """Give the client that asks the user's server, which it starts where there is none.

    Raises
    ------
    Failure
        If there is no adb, or a server runs that a fetched one would not go with.
    """
    client = AdbClient(find_adb(), {})
    if not client.program.is_users:
        named = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
        port = int(named) if named.isdecimal() else SERVER_PORT
        use_until_our_end(client.program, port)
        running = _server_version(port)
        _require_same_version(client, running)
        if running is None:
            mark_as_ours(port)
    return client


def _client_of(phone: PhoneProcess) -> AdbClient:
    return AdbClient(find_adb(), phone.client_settings())


def _usable(client: AdbClient, serial: str) -> PhoneLink:
    """Return a phone that is known to a server, or say why it cannot be used."""
    for phone in list_connected(client):
        if phone.serial == serial and not phone.is_usable:
            raise _unusable(phone)
        if phone.serial == serial:
            return PhoneLink(client, serial)
    raise Failure(f"adb:{serial}: {GONE}")


def _unusable(phone: ListedPhone) -> Failure:
    return Failure(f"adb:{phone.serial}: {phone.complaint}")


def _require_same_version(client: AdbClient, running: int | None) -> None:
    """Leave a server of another version alone: a client would end it and start its own.

    Raises
    ------
    Failure
        If such a server runs.
    """
    own = re.search(r"version 1\.0\.(\d+)", client.run(["version"]).output)
    if running is not None and own and running != int(own[1]):
        raise Failure(
            f"an adb server of version 1.0.{running} runs, and the adb that was fetched is"
            f" {printable_line(own[0])}: put the adb of that server on the PATH"
        )


def _server_version(port: int) -> int | None:
    """Ask a server for its version; None where none listens, or it is no server of adb."""
    try:
        with socket.create_connection(("127.0.0.1", port), _PROBE_S) as server:
            server.sendall(b"000chost:version")
            said = server.makefile("rb").read(12)
        return int(said[8:12], 16) if said[:4] == b"OKAY" else None
    except (OSError, OverflowError, ValueError):
        return None
