"""Folders: what the package brings along, and where a user's files go."""

from __future__ import annotations

import os
from pathlib import Path

import shuffledeploy

#: What holds ``compile``, ``deploy``, ``model`` and ``tuning_logs``: a checkout, or the package.
PACKAGE = Path(__file__).resolve().parent.parent
#: Where Python finds the package ``shuffledeploy``.
SEARCH_PATH = Path(next(iter(shuffledeploy.__path__))).parent
#: What commands make goes here, below the folder in which they are run.
BUILD = Path("build")
#: Records that come with the package.
COMMITTED_RECORDS = PACKAGE / "tuning_logs"


def records_folder() -> Path:
    """Give the folder of tuning records: the checkout's, or, of an installed copy, the user's own.

    What the user finds goes there; records that come with the package are used beside them.
    """
    if (PACKAGE / "pyproject.toml").is_file():
        return COMMITTED_RECORDS
    base = os.environ.get("XDG_DATA_HOME")
    home = Path(base) if base else Path("~/.local/share").expanduser()
    return home / "shuffledeploy" / "tuning_logs"
