"""The server that a fetched adb starts goes with the last program that uses it.

The user's own adb keeps its server, as its users know it. One that was fetched would leave a server
that nobody knows how to end.
"""

from __future__ import annotations

import fcntl
import functools
from typing import IO

from shuffledeploy.deploy.phone.adb_program import AdbProgram
from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.scratch import at_our_end

# All users hold the lock together; whoever gets it alone is the last one.
_END = """\
flock -w 2 "$1" sh -c '[ -e "$2" ] && rm -f "$1" "$2" && exec "$3" kill-server' sh "$@"
"""
# Keeps our hold of each lock for as long as this program lives.
_HELD: list[IO[str]] = []


@functools.cache
def end_with_last_user(program: AdbProgram, port: int, runs_already: bool) -> None:
    """See to it that a server which is about to be started ends with its last user.

    Parameters
    ----------
    program : AdbProgram
        A fetched adb.
    port : int
        Where the server listens.
    runs_already : bool
        Whether it does so now. A server that somebody else started is left alone.
    """
    lock = cache_folder() / f".adb-server-{port}.lock"
    ours = lock.with_suffix(".ours")
    held = lock.open("w")
    fcntl.flock(held, fcntl.LOCK_SH)
    _HELD.append(held)
    if not runs_already:
        ours.touch()
    at_our_end(["/bin/sh", "-c", _END, "sh", str(lock), str(ours), str(program.executable)])
