"""Folders that go with the program, however it ends."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 20.0
# Waits until its input closes, as it does when the program ends, be it of SIGKILL.
_WAIT = 'read -r _; exec "$@"'
# Workers of the program may write a moment longer: once more, then.
_REMOVE = 'rm -rf -- "$1" 2>/dev/null || { sleep 1; rm -rf -- "$1"; }'


@contextmanager
def scratch_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Give an empty folder that is removed at the end of the block, or when the program dies.

    Parameters
    ----------
    prefix : str
        What its name begins with.
    parent : Path, optional
        Where it is made; the system's folder for temporary files if nothing is said. In the block
        it may be renamed: then it stays.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    remove = removal_at_our_end(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        remove()


def removal_at_our_end(folder: Path) -> Callable[[], None]:
    """See to it that a folder is removed when this program has died, however.

    Returns
    -------
    Callable
        Removes it now.
    """
    return at_our_end(["/bin/sh", "-c", _REMOVE, "sh", str(folder)])


def at_our_end(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Callable[[], None]:
    """See to it that a command is run when this program has died, however.

    Returns
    -------
    Callable
        Runs it now, and waits for its end, but no longer than `PATIENCE_S`.
    """
    # In a session of its own, so that what ends this program's group does not end it, too.
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", _WAIT, "sh", *command], stdin=subprocess.PIPE, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def run() -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            watcher.communicate(timeout=PATIENCE_S)

    return run
