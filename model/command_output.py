"""What the commands of this package share: progress on standard error, JSON files, numbers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.plain_console import plain_console
from shuffledeploy.model.progress import LINE_EVERY_S, clock, seconds_left

CONSOLE = plain_console(stderr=True)
# Of what is done: less tells nothing of the time left.
SMALL_SHARE = 0.01


@contextmanager
def steps(text: str, total: int) -> Iterator[Callable[[str | None], None]]:
    """Show a bar with elapsed and remaining time on standard error; in a file, lines.

    Parameters
    ----------
    text : str
        What is being done.
    total : int
        How many steps it takes.

    Yields
    ------
    Callable
        Call it with None after each step, or with a text to say what is being done now.
    """
    if not CONSOLE.is_terminal:
        yield _lines(text, total)
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20),
        TimeElapsedColumn(), TextColumn("left"), TimeLeftColumn(),
    )  # fmt: skip
    with Progress(*columns, console=CONSOLE, transient=True) as bar:
        task = bar.add_task(text, total=total)

        def tell(now: str | None) -> None:
            if now is None:
                bar.advance(task)
            else:
                bar.update(task, description=now)

        yield tell


@contextmanager
def shares(text: str) -> Iterator[Callable[[str | None, float], None]]:
    """Tell of work whose parts are not alike: what is being done, and the share that is done.

    On a terminal one line that changes; in a file, a line now and then with the time left.
    """
    began = said = time.monotonic()
    doing = text

    def line(share: float) -> str:
        elapsed = time.monotonic() - began
        left = f", about {clock(elapsed * (1 / share - 1))} left" if share > SMALL_SHARE else ""
        return f"{share:.0%} in {clock(elapsed)}{left}; {doing}"

    with CONSOLE.status(text) if CONSOLE.is_terminal else nullcontext() as status:

        def tell(what: str | None, share: float) -> None:
            nonlocal said, doing
            doing = what or doing
            if status is not None:
                status.update(line(share))
            elif time.monotonic() - said >= LINE_EVERY_S:
                said = time.monotonic()
                CONSOLE.print(line(share), soft_wrap=True)

        yield tell


def _lines(text: str, total: int) -> Callable[[str | None], None]:
    """Tell of steps by a line now and then."""
    began = said = time.monotonic()
    done, doing = 0, text

    def tell(now: str | None) -> None:
        nonlocal said, done, doing
        done, doing = (done + 1, doing) if now is None else (done, now)
        moment = time.monotonic()
        if moment - said < LINE_EVERY_S:
            return
        said = moment
        left = seconds_left(done, total, moment - began)
        still = "" if left is None else f", about {clock(left)} left"
        CONSOLE.print(
            f"{done} of {total} in {clock(moment - began)}{still}; {doing}", soft_wrap=True
        )

    return tell


def require_writable(path: Path | None) -> None:
    """Refuse before the work what could not be written after it.

    Raises
    ------
    UsageError
        If the file's folder does not exist or cannot be written, or the path is a folder.
    """
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: {path.parent} is read-only")


def require_creatable(path: Path | None) -> None:
    """Refuse before the work what could not be written after it; makes the folder it is to go to.

    Raises
    ------
    UsageError
        If the folder cannot be made or written, or the path is a folder.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    require_writable(path)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a path beside a file, which becomes the file when the block ends well.

    Raises
    ------
    UsageError
        If it cannot be written.
    """
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all.

    Raises
    ------
    UsageError
        If it cannot be written.
    """
    text = json.dumps(document, indent=1, allow_nan=False)
    with replaced(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def three_digits(value: float) -> str:
    """Write three significant digits, all of those before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def counted(number: int, what: str) -> str:
    """Write how many there are of something, such as "1 thread" and "2 threads"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
