"""What is started and kept: a process group each with a folder and a record, nothing left behind.

A record lets later commands find what runs. A process that is no longer wanted ends with its group,
and its folder goes; so does what dies, or is started by a program that dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from shuffledeploy.model.errors import Failure
from shuffledeploy.model.printable import printable_line
from shuffledeploy.model.scratch import removal_at_our_end

READY_S = 120.0
_RECORD = "record.json"


class Kept(Protocol):
    """The record of a process that is kept, a dataclass of texts and numbers."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def pid(self) -> int:
        """Return the process, which leads a process group of its own."""

    @property
    def started(self) -> int:
        """Return when it started, in the kernel's ticks: tells it from a later process."""

    @property
    def folder(self) -> str:
        """Return its folder."""


Record = TypeVar("Record", bound=Kept)


@dataclass(frozen=True)
class Launch:
    """How a process is started.

    Attributes
    ----------
    command : sequence of str
        Its command. It says ``ready WORDS...`` on its output when it can be used.
    environment : mapping
        What it sees.
    what : str
        What it is, for people.
    background : bool
        Whether it outlives this program. Otherwise its standard input closes when this program
        ends, however that ends; the process then has to end itself and its group.
    place : Path
        Where the command is started.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    what: str
    background: bool
    place: Path


# Keeps our end of each one's pipe open.
_LAUNCHED: dict[int, subprocess.Popen[bytes]] = {}
# Removes the folder of each one that ends with this program.
_REMOVALS: dict[int, Callable[[], None]] = {}


def keep(
    parent: Path,
    plan: Callable[[Path], Launch],
    record: Callable[[int, int, str, list[str]], Record],
) -> Record:
    """Start a process, wait until it is ready, and write its record.

    Parameters
    ----------
    parent : Path
        Where the folders and records of its kind are.
    plan : Callable
        Given its folder, with an empty ``tmp`` in it, gives how it is started.
    record : Callable
        Given process, start, folder and the words after ``ready``, gives the record.

    Raises
    ------
    Failure
        When it does not come up: with its last words.
    """
    folder = parent / secrets.token_hex(4)
    (folder / "tmp").mkdir(parents=True)
    process, remove = None, _nothing
    try:
        launch = plan(folder)
        if not launch.background:
            remove = removal_at_our_end(folder)
        process = _start(launch, folder)
        words = _wait_until_ready(process, folder / "log", launch.what)
        kept = record(process.pid, start_ticks(process.pid), str(folder), words)
        (folder / _RECORD).write_text(json.dumps(asdict(kept)))
    except BaseException:
        if process:
            _kill_group(process.pid)
            process.wait()
            _LAUNCHED.pop(process.pid)
        shutil.rmtree(folder, ignore_errors=True)
        remove()
        raise
    _REMOVALS[kept.pid] = remove
    return kept


def is_running(kept: Kept) -> bool:
    """Whether a process still lives."""
    return start_ticks(kept.pid) == kept.started


def end(kept: Kept) -> None:
    """End a process and its group, and remove its folder. Harmless if it is gone."""
    if is_running(kept):
        _kill_group(kept.pid)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(kept.pid, 0)
    deadline = time.monotonic() + 5
    while is_running(kept) and time.monotonic() < deadline:
        time.sleep(0.02)
    _LAUNCHED.pop(kept.pid, None)
    shutil.rmtree(kept.folder, ignore_errors=True)
    _REMOVALS.pop(kept.pid, _nothing)()


def _nothing() -> None:
    """Remove nothing."""


def list_kept(parent: Path, kind: type[Record]) -> list[Record]:
    """Return the records of what runs; what is left of the dead is removed."""
    running = []
    for file in sorted(parent.glob(f"*/{_RECORD}")):
        try:
            kept = kind(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if is_running(kept):
            running.append(kept)
        else:
            shutil.rmtree(file.parent, ignore_errors=True)
    _remove_unfinished(parent)
    return running


def _remove_unfinished(parent: Path) -> None:
    """Remove folders of what was never ready, for its program was killed before."""
    for folder in parent.glob("*"):
        with contextlib.suppress(OSError):
            is_old = time.time() - folder.stat().st_mtime > 2 * READY_S
            if is_old and not (folder / _RECORD).exists():
                shutil.rmtree(folder, ignore_errors=True)


def _start(launch: Launch, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            launch.command, stdin=subprocess.DEVNULL if launch.background else subprocess.PIPE,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=launch.environment,
            cwd=launch.place,
        )  # fmt: skip
    _LAUNCHED[process.pid] = process
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, what: str) -> list[str]:
    """Return what a process says after ``ready``."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        lines = log.read_text(errors="replace").splitlines()
        for line in lines:
            if line.startswith("ready "):
                return line.split()[1:]
        if process.poll() is not None:
            last = printable_line(lines[-1]) if lines else f"exit status {process.returncode}"
            raise Failure(f"{what} did not come up: {last}")
        time.sleep(0.05)
    raise Failure(f"{what} did not come up within {READY_S:.0f} s")


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def start_ticks(pid: int) -> int:
    """Return when a process started, -1 if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    # The name in parentheses may hold anything: the fixed fields follow its last one.
    fields = text.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])
