"""Where what was downloaded or built once is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the project's cache folder, ``$XDG_CACHE_HOME`` or ``~/.cache``, plus its name."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "shuffledeploy"
