"""The server that a fetched adb starts goes with the last program that uses it.

The user's own adb keeps its server, as its users know it. One that was fetched would leave a server
that nobody knows how to end.
"""

from __future__ import annotations

import fcntl
import functools
from pathlib import Path
from typing import IO

from shuffledeploy.deploy.phone.adb_program import AdbProgram
from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.scratch import at_our_end

# All users hold the lock together; whoever gets it alone is the last one. The file stays: who waits
# for it would else hold a lock on a file that nobody finds.
_END = """\
flock -w 2 "$1" sh -c '[ -e "$2" ] && rm -f "$2" && exec "$3" kill-server' sh "$@"
"""
# Keeps our hold of each lock for as long as this program lives.
_HELD: list[IO[str]] = []


@functools.cache
def use_until_our_end(program: AdbProgram, port: int) -> None:
    """Use a server for as long as this program lives; one that is known as ours ends with us.

    From here on no other user ends it.

    Parameters
    ----------
    program : AdbProgram
        A fetched adb.
    port : int
        Where the server listens.
    """
    lock = cache_folder() / f".adb-server-{port}.lock"
    held = lock.open("w")
    fcntl.flock(held, fcntl.LOCK_SH)
    _HELD.append(held)
    words = (str(lock), str(_mark(port)), str(program.executable))
    at_our_end(["/bin/sh", "-c", _END, "sh", *words])


def mark_as_ours(port: int) -> None:
    """Let a server that is about to be started be known as ours; others are left alone."""
    _mark(port).touch()


def _mark(port: int) -> Path:
    return cache_folder() / f".adb-server-{port}.ours"
