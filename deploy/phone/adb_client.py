"""Commands of adb, each with a time limit; what goes wrong is said in one line."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.phone.adb_program import AdbProgram
from shuffledeploy.deploy.remote.bounded_command import run_bounded
from shuffledeploy.deploy.remote.remote_host import Answer, Command
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.printable import printable_line
from shuffledeploy.model.scratch import at_our_end

SERVER_PORT = 5037
#: A server of adb takes seconds to start, and waits for phones as it does.
_COMMAND_S = 20.0
_READY = "device"
_SETTLING = ("authorizing", "connecting")
_OFFLINE = "offline"
_SETTLED_S = 3.0
_OWN_COMPLAINTS = ("error:", "adb:", "adb W", "* cannot")
# What adb says, and what that means for the one who holds the phone.
_MEANINGS = (
    (
        "unauthorized",
        "it has not allowed this computer: unlock the phone and allow USB debugging on its screen",
    ),
    ("authorizing", "it is about to allow this computer: try again"),
    ("offline", "it is offline: unplug it and plug it in again"),
    (
        "no permissions",
        "this user may not open it: install your distribution's udev rules for Android phones",
    ),
    ("no space left", "there is no room left on it"),
    ("read-only file system", "its disk cannot be written"),
)
GONE = "it is gone: was the cable pulled?"
# A client says so much in many words when its phone or its server goes in the middle.
_GONE = re.compile(
    r"not found|no devices|closed|connection reset|protocol fault|failed to read|broken pipe"
    r"|cannot connect to daemon|EOF|connect failed",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class AdbClient:
    """An adb client, and the server that it asks.

    Attributes
    ----------
    program : AdbProgram
        The client.
    settings : mapping
        Environment by which it finds its server; empty for the user's own server.
    """

    program: AdbProgram
    settings: Mapping[str, str]

    def command(self, arguments: Sequence[str]) -> Command:
        """Return the command that has such arguments."""
        words = (str(self.program.executable), *arguments)
        return Command(words, {**os.environ, **self.settings})

    def run(self, arguments: Sequence[str], limit_s: float = _COMMAND_S) -> Answer:
        """Run a command of adb.

        Raises
        ------
        Failure
            If it does not end in time.
        """
        command = self.command(arguments)
        try:
            return run_bounded(command, limit_s)
        except TimeoutError:
            words = printable_line(" ".join(arguments[:4]))
            raise Failure(f"'adb {words}' does not end within {limit_s:g} s") from None
        except OSError as error:
            raise Failure(f"{command.words[0]} cannot be started: {error.strerror}") from error


@dataclass(frozen=True)
class ListedPhone:
    """A phone as a server of adb lists it; ``state`` is ``device`` where it can be used."""

    serial: str
    state: str

    @property
    def is_usable(self) -> bool:
        """Whether it can be used."""
        return self.state == _READY

    @property
    def is_offline(self) -> bool:
        """Whether it may be long gone: adb keeps the addresses of phones that it lost."""
        return self.state == _OFFLINE

    @property
    def is_settling(self) -> bool:
        """Whether it will be something else in a moment."""
        return self.state in _SETTLING

    @property
    def complaint(self) -> str:
        """Say why it cannot be used, and what to do."""
        return meaning(self.state) or f"adb says that it is '{printable_line(self.state)}'"


def list_connected(client: AdbClient) -> list[ListedPhone]:
    """Return the phones that a server knows, usable or not; waits for those that just came.

    Raises
    ------
    Failure
        If there is no server, and none can be started.
    """
    deadline = time.monotonic() + _SETTLED_S
    while True:
        answer = client.run(["devices"])
        if answer.status:
            raise Failure(f"adb lists no phones: {_reason(answer)}")
        rows = [line.partition("\t") for line in answer.output.splitlines()]
        phones = [ListedPhone(serial, state.strip()) for serial, tab, state in rows if tab]
        if time.monotonic() > deadline or not any(phone.is_settling for phone in phones):
            return phones
        time.sleep(0.1)


def meaning(said: str) -> str | None:
    """Say what a word of adb's means for the one who holds the phone; None where it is unknown."""
    lowered = said.lower()
    return next((told for words, told in _MEANINGS if words in lowered), None)


def why_unusable(said: str) -> str | None:
    """Say why a phone cannot be used (any longer) from what adb said; None if that is not why."""
    return meaning(said) or (GONE if _GONE.search(said) else None)


def _reason(answer: Answer) -> str:
    """Take the line of an answer that says why: adb's own, else the last one."""
    lines = [line for said in (answer.errors, answer.output) for line in said.strip().splitlines()]
    own = [line for line in lines if line.startswith(_OWN_COMPLAINTS)]
    return printable_line((own or lines[-1:] or [f"exit status {answer.status}"])[0])


@dataclass(frozen=True)
class PhoneLink:
    """A phone that can be used.

    Attributes
    ----------
    client : AdbClient
        What reaches it.
    serial : str
        What adb calls it.
    """

    client: AdbClient
    serial: str

    @property
    def name(self) -> str:
        """Return the device name by which every command finds it."""
        return f"adb:{self.serial}"

    def failure(self, answer: Answer, purpose: str) -> Failure:
        """Say why a command failed, or that the phone is gone."""
        why = why_unusable(f"{answer.errors}\n{answer.output}")
        return Failure(f"{self.name}: {why or f'cannot {purpose}: {_reason(answer)}'}")

    def arguments(self, *words: str) -> list[str]:
        """Return the arguments of a command for this phone."""
        return ["-s", self.serial, *words]

    def require(self, purpose: str, *words: str, limit_s: float = _COMMAND_S) -> str:
        """Run a command that has to work; return what it says.

        Raises
        ------
        Failure
            If it does not, with the reason.
        """
        answer = self.client.run(self.arguments(*words), limit_s)
        if answer.status:
            raise self.failure(answer, purpose)
        return answer.output.strip()

    def shell(self, line: str, limit_s: float = _COMMAND_S) -> Answer:
        """Run a line in the phone's shell.

        Raises
        ------
        Failure
            If the phone is gone; a line that fails is an answer.
        """
        answer = self.client.run(self.arguments("shell", line), limit_s)
        # adb's own complaints have no exit status of their own.
        if answer.status and answer.errors.startswith(_OWN_COMPLAINTS):
            raise self.failure(answer, "run a shell")
        return answer

    def push(self, files: Sequence[Path], folder: str, limit_s: float) -> None:
        """Send files into a folder of the phone.

        Raises
        ------
        Failure
            If there is no room, or the phone is gone.
        """
        self.require("push", "push", *map(str, files), f"{folder}/", limit_s=limit_s)

    @contextmanager
    def forwarded(self, port: int) -> Iterator[int]:
        """Let a free port of this machine lead to one of the phone, for the length of a block.

        Yields
        ------
        int
            The port of this machine. It is freed at the end, also where this program is killed.
        """
        told = self.require("forward a port", "forward", "tcp:0", f"tcp:{port}")
        with self._until_our_end("forward", _port(self, told)) as found:
            yield found

    @contextmanager
    def reversed(self, port: int) -> Iterator[int]:
        """Let a free port of the phone lead to one of this machine; as `forwarded`."""
        told = self.require("reverse a port", "reverse", "tcp:0", f"tcp:{port}")
        with self._until_our_end("reverse", _port(self, told)) as found:
            yield found

    @contextmanager
    def _until_our_end(self, kind: str, port: int) -> Iterator[int]:
        freeing = self.client.command(self.arguments(kind, "--remove", f"tcp:{port}"))
        remove = at_our_end(freeing.words, freeing.environment)
        try:
            yield port
        finally:
            remove()


def _port(link: PhoneLink, told: str) -> int:
    if not told.isdecimal() or not 0 < int(told) < 65536:
        raise Failure(f"{link.name}: adb named no port: {printable_line(told)}")
    return int(told)
