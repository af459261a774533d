"""Writing a log so that nothing is lost: appended and synced, or written beside and renamed."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shuffledeploy.model.errors import UsageError


def read_text(path: Path) -> str:
    """Read a log; bytes that are no text are marked.

    Raises
    ------
    UsageError
        If it is no file: a pipe or a device would be read for ever.
    OSError
        If it cannot be read.
    """
    _require_file(path, "read")
    return path.read_text(encoding="utf-8", errors="replace")


def _require_file(path: Path, do: str) -> None:
    if not path.is_file():
        raise UsageError(f"cannot {do} the tuning log {path}: it is no file")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other tuners from writing to a log; the lock is on its folder and leaves no file."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextmanager
def _refused_in_words(path: Path) -> Iterator[None]:
    """Say of a log that cannot be written which it is and why."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write the tuning log {path}: {error.strerror}") from error


def require_appendable(path: Path) -> None:
    """Refuse a log that cannot be written, before any work; leaves nothing behind.

    Raises
    ------
    UsageError
        If it cannot.
    """
    with _refused_in_words(path):
        if path.exists():
            _require_file(path, "write")
            with path.open("ab"):
                return
        place = next(folder for folder in path.parents if folder.exists())
        with tempfile.TemporaryFile(dir=place):
            pass


def append_text(path: Path, text: str) -> None:
    """Add whole lines to a file and have them on the disk before returning.

    Raises
    ------
    UsageError
        If the file cannot be written, or the disk is full.
    """
    with _refused_in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path), path.open("ab+") as stream:
            # A run that was cut off may have left half a line: do not write on behind it.
            stream.seek(-min(1, stream.tell()), os.SEEK_END)
            half = stream.read(1) not in (b"", b"\n")
            stream.write(("\n" * half + text).encode())
            stream.flush()
            os.fsync(stream.fileno())


def replace_text(path: Path, text: str) -> None:
    """Replace a file that is locked; the old one stays whole until the new one is on the disk.

    Raises
    ------
    UsageError
        If the file cannot be written, or the disk is full.
    """
    beside = path.with_suffix(".new")
    with _refused_in_words(path):
        try:
            with beside.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
