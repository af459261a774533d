"""What adb and ssh are to those who run a server on a device: commands, files, ports."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Answer:
    """What came of a command.

    Attributes
    ----------
    status : int
        Its exit status.
    output, errors : str
        What it said.
    """

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class Command:
    """A command of this machine.

    Attributes
    ----------
    words : tuple of str
        The program and its arguments.
    environment : mapping
        What it sees.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class HostTraits:
    """What has to be known of a device before anything is sent there.

    Attributes
    ----------
    architecture : str
        As ``uname -m`` names it.
    is_emulated : bool
        Whether it says of itself that it is an emulator's.
    counts : str
        Where an emulator's plugin writes what it counts, a prefix of paths; empty where none does.
    """

    architecture: str
    is_emulated: bool = False
    counts: str = ""


class RemoteHost(Protocol):
    """A device with a shell."""

    @property
    def name(self) -> str:
        """Return the device's name, for people."""

    @property
    def folder(self) -> str:
        """Return the device's folder for all that is pushed: an absolute path without blanks."""

    def traits(self) -> HostTraits:
        """Ask what it is; a `Failure` if no server runs there, or it is gone."""

    def shell(self, line: str, limit_s: float = ...) -> Answer:
        """Run a line in its shell; a `Failure` if it is gone, a line that fails is an answer."""

    def shell_command(self, line: str) -> Command:
        """Return what runs a line there, with our standard input and output as its own."""

    def push(self, files: Path, folder: str) -> None:
        """Send all files of a folder into a new folder there; a `Failure` if that cannot be."""

    def forwarded(self, port: int) -> AbstractContextManager[int]:
        """Let a free port of this machine lead to one of the device, for a block's length."""

    def why_lost(self, said: str) -> str:
        """Say in one line why a command ended that should not have, from its last words."""
