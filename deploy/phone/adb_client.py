"""Commands of adb, each with a time limit; what goes wrong is said in one line."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.phone.adb_program import AdbProgram
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.printable import printable_line

SERVER_PORT = 5037
_LOOPBACK = "127.0.0.1"
_PROBE_S = 2.0
#: A server of adb takes seconds to start, and waits for phones as it does.
_COMMAND_S = 20.0
_READY = "device"
_OWN_COMPLAINTS = ("error:", "adb:")
_MOST_BYTES = 1 << 20
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
    own_port : int
        Where a server of an emulated phone listens; 0 for the user's own. Without it a client
        would start one that nobody ends.
    """

    program: AdbProgram
    settings: Mapping[str, str]
    own_port: int = 0

    def command(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Return a command, and the environment that it needs.

        Raises
        ------
        Failure
            If the server of an emulated phone is gone.
        """
        if self.own_port:
            try:
                socket.create_connection((_LOOPBACK, self.own_port), _PROBE_S).close()
            except OSError:
                raise Failure("the adb server of the emulated phone is gone") from None
        return [str(self.program.executable), *arguments], self.program.environment(self.settings)

    def run(self, arguments: Sequence[str], limit_s: float = _COMMAND_S) -> Answer:
        """Run a command of adb.

        Raises
        ------
        Failure
            If it does not end in time.
        """
        command, environment = self.command(arguments)
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, env=environment, timeout=limit_s,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            words = printable_line(" ".join(arguments[:4]))
            raise Failure(f"'adb {words}' does not end within {limit_s:g} s") from None
        except OSError as error:
            raise Failure(f"{command[0]} cannot be started: {error.strerror}") from error
        return Answer(done.returncode, _text(done.stdout), _text(done.stderr))


@dataclass(frozen=True)
class Answer:
    """What came of a command.

    Attributes
    ----------
    status : int
        Its exit status; of a line of a phone's shell that of the line, from Android 7 on.
    output, errors : str
        What it said.
    """

    status: int
    output: str
    errors: str


def _text(said: bytes) -> str:
    return said[:_MOST_BYTES].decode(errors="replace").replace("\r\n", "\n")


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
    def complaint(self) -> str:
        """Say why it cannot be used, and what to do."""
        return meaning(self.state) or f"adb says that it is '{printable_line(self.state)}'"


def list_connected(client: AdbClient) -> list[ListedPhone]:
    """Return the phones that a server knows, usable or not.

    Raises
    ------
    Failure
        If there is no server, and none can be started.
    """
    answer = client.run(["devices"])
    if answer.status:
        raise Failure(f"adb lists no phones: {_reason(answer)}")
    rows = [line.partition("\t") for line in answer.output.splitlines()]
    return [ListedPhone(serial, state.strip()) for serial, tab, state in rows if tab]


def meaning(said: str) -> str | None:
    """Say what a word of adb's means for the one who holds the phone; None where it is unknown."""
    lowered = said.lower()
    return next((told for words, told in _MEANINGS if words in lowered), None)


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
        said = f"{answer.errors}\n{answer.output}"
        if told := meaning(said):
            return Failure(f"{self.name}: {told}")
        if _GONE.search(answer.errors or answer.output):
            return Failure(f"{self.name} is gone: was the cable pulled?")
        return Failure(f"{self.name}: cannot {purpose}: {_reason(answer)}")

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

    def forward(self, port: int) -> int:
        """Let a free port of this machine lead to one of the phone; return it."""
        told = self.require("forward a port", "forward", "tcp:0", f"tcp:{port}")
        return _port(self, told)

    def remove_forward(self, port: int) -> None:
        """Free a port of this machine. Harmless if the phone is gone."""
        with contextlib.suppress(Failure):
            self.client.run(self.arguments("forward", "--remove", f"tcp:{port}"))

    def reverse(self, port: int) -> int:
        """Let a free port of the phone lead to one of this machine; return it."""
        told = self.require("reverse a port", "reverse", "tcp:0", f"tcp:{port}")
        return _port(self, told)

    def remove_reverse(self, port: int) -> None:
        """Free a port of the phone. Harmless if the phone is gone."""
        with contextlib.suppress(Failure):
            self.client.run(self.arguments("reverse", "--remove", f"tcp:{port}"))


def _port(link: PhoneLink, told: str) -> int:
    if not told.isdecimal() or not 0 < int(told) < 65536:
        raise Failure(f"{link.name}: adb named no port: {printable_line(told)}")
    return int(told)
