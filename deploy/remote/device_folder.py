"""Folders on a device that are there for a while, and the room that they need."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from shuffledeploy.deploy.remote.remote_host import RemoteHost
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.printable import printable_line
from shuffledeploy.model.scratch import at_our_end

#: Room that a device must have beside what is pushed: for bundles and their libraries.
_SPARE_KIB = 4096


@contextmanager
def device_folder(host: RemoteHost, kind: str, size_kib: int) -> Iterator[str]:
    """Make a folder on a device, which is removed at the end of the block, or when we are killed.

    Parameters
    ----------
    host : RemoteHost
        The device.
    kind : str
        What the folder's name begins with.
    size_kib : int
        Room that must be there for it.

    Raises
    ------
    Failure
        If there is no room, or the device is gone.
    """
    require_room(host, size_kib)
    folder = f"{host.folder}/{kind}-{secrets.token_hex(4)}"
    removal = host.shell_command(f"rm -rf {folder}")
    remove = at_our_end(removal.words, removal.environment)
    try:
        require(host, f"mkdir {folder}", "make a folder")
        yield folder
    finally:
        remove()


def require_room(host: RemoteHost, size_kib: int) -> None:
    """See to it that so much can be sent.

    Raises
    ------
    Failure
        If there is no room; says how much there is. A device that does not tell is tried.
    """
    require(host, f"mkdir -p {host.folder}", "make a folder")
    rows = host.shell(f"df -k {host.folder}").output.strip().splitlines()
    # Long names of disks push the numbers onto a line of their own: they are counted from behind.
    numbers = [word for word in (rows[-1].split() if rows else []) if word.isdecimal()]
    free = int(numbers[-1]) if len(numbers) >= 3 else None
    if free is not None and free < size_kib + _SPARE_KIB:
        raise Failure(
            f"{host.name}: too little room in {host.folder}: {free / 1024:.1f} MiB are free,"
            f" {(size_kib + _SPARE_KIB) / 1024:.1f} are needed; make room there"
        )


def require(host: RemoteHost, line: str, purpose: str) -> None:
    """Run a line in a device's shell that has to work.

    Raises
    ------
    Failure
        If it does not, or the device is gone; `purpose` says in the infinitive what it was for.
    """
    answer = host.shell(line)
    if answer.status:
        said = printable_line(answer.errors or answer.output) or f"exit status {answer.status}"
        raise Failure(f"{host.name}: cannot {purpose}: {said}")
