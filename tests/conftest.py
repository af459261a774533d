"""What every test can use, and the host that the tests take this machine for."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

import pretended_host  # noqa: F401 - first: other conftest files ask which core this is
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag here: without arguments pytest knows no options of folders further down."""
    parser.addoption("--update-golden", action="store_true", help="write tests/compile/golden anew")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start long files first: what is left at the end is short."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


class Leftovers:
    """What a program leaves behind: processes of its, files in its temporary folder.

    Attributes
    ----------
    environment : dict
        To start the program with: all of its descendants can be told by it.
    temporary : Path
        Where it puts temporary files.
    """

    def __init__(self, temporary: Path) -> None:
        self._mark = f"SHUFFLEDEPLOY_TEST={secrets.token_hex(8)}"
        self.temporary = temporary
        name, _, value = self._mark.partition("=")
        self.environment = {**os.environ, name: value, "TMPDIR": str(temporary)}

    def processes(self) -> list[str]:
        """Command lines of what still runs."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if self._mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def assert_none_within(self, seconds: float) -> None:
        """Wait for the last of them to go."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (self.processes() or any(self.temporary.iterdir())):
            time.sleep(0.05)
        assert self.processes() == []
        assert list(self.temporary.iterdir()) == []


@pytest.fixture
def leftovers(tmp_path: Path) -> Leftovers:
    """Give what tells whether a program that was killed left something."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    return Leftovers(temporary)
