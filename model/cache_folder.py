"""Where what was downloaded or built once is kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shuffledeploy.model.errors import UsageError


def cache_folder() -> Path:
    """Return the project's cache folder, ``$XDG_CACHE_HOME`` or ``~/.cache``, plus its name.

    It is made if it is not there. Programs in it are executed: it has to be this user's alone.

    Raises
    ------
    UsageError
        If it cannot be made, belongs to somebody else, or others may write to it.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(base) if base else Path.home() / ".cache") / "shuffledeploy"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"no cache folder can be made ({reason}): set XDG_CACHE_HOME to a folder of yours"
        ) from error
    if found.st_uid not in (os.getuid(), 0):
        raise UsageError(
            f"{folder} belongs to user {found.st_uid}, and what is in it would be executed:"
            " set XDG_CACHE_HOME to a folder of yours"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            f"others may write to {folder}, and what is in it would be executed: remove it, or"
            " look through it and run chmod go-w"
        )
    return folder
