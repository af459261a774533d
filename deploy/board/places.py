"""Where the emulator keeps what it builds: one cache folder a recipe, written once, renamed."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.plain_console import plain_console
from shuffledeploy.model.scratch import scratch_folder

CONSOLE = plain_console(stderr=True)
PACKAGE = Path(__file__).parent


def state_folder() -> Path:
    """Return the folder that lists the running boards."""
    return cache_folder() / "running"


def phones_folder() -> Path:
    """Return the folder that lists the running emulated phones."""
    return cache_folder() / "phones"


def recipe_hash(*parts: str | Path) -> str:
    """Hash what a build depends on: texts as they are, files by their contents."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say on standard error what runs, and how long it took."""
    started = time.monotonic()
    with CONSOLE.status(text):
        yield
    CONSOLE.print(Text.assemble(f"  {text} ", (f"{time.monotonic() - started:.1f} s", "dim")))


def built_once(name: str, build: Callable[[Path], None]) -> Path:
    """Return a cached folder, building it first if it is not there.

    Parameters
    ----------
    name : str
        The folder's name in the cache, with the hash of its recipe.
    build : Callable
        Fills the empty folder it is given. What it writes must not hold that folder's path.

    Returns
    -------
    Path
        The finished folder. It appears whole or not at all: it is written beside and renamed. Of
        two commands at once the second waits for the first.
    """
    finished = cache_folder() / name
    if finished.is_dir():
        return finished
    with _one_at_a_time(finished):
        if finished.is_dir():
            return finished
        CONSOLE.print(f"building {name} into {finished.parent}")
        with scratch_folder(f".{name}-", finished.parent) as draft:
            build(draft)
            draft.chmod(0o755)
            draft.rename(finished)
    return finished


@contextmanager
def _one_at_a_time(finished: Path) -> Iterator[None]:
    """Keep other commands from building the same; a lock goes with the program that holds it."""
    with finished.with_name(f".{finished.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            CONSOLE.print(f"another command is building {finished.name}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
