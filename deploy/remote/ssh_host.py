"""A board that the user's own ssh reaches; no password and no key is handled here."""

from __future__ import annotations

import io
import os
import platform
import re
import shlex
import shutil
import socket
import subprocess
import tarfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from shuffledeploy.deploy.remote.bounded_command import end_by_input, run_bounded
from shuffledeploy.deploy.remote.remote_host import Answer, Command, HostTraits
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.printable import printable_line

_SHELL_S = 30.0
# 4 MB, compressed, over a slow radio link.
_PUSH_S = 300.0
_FORWARD_S = 20.0
_END_S = 5.0
_LAST_COMPLAINTS, _LONGEST_COMPLAINT = 20, 500
#: How ssh says that it failed itself.
_SSH_FAILED = 255
_OPTIONS = {
    "BatchMode": "yes", "ConnectTimeout": "10", "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3", "ControlMaster": "no", "ControlPath": "none",
    "ForwardAgent": "no", "ForwardX11": "no", "RemoteCommand": "none", "RequestTTY": "no",
}  # fmt: skip
#: What a board's shell says before a line of ours begins.
_BEGINS = "shuffledeploy-begins"
#: What ssh says (OpenSSH 9, last lines) -> what that means.
_MEANINGS = {
    "could not resolve hostname": "ssh finds no host of that name",
    "host key verification failed": (
        "ssh does not know the board's key, or it has changed: run ssh to it once by hand"
    ),
    "identification has changed": "the board's key has changed: run ssh to it once by hand",
    # Of ssh alone: a shell that may not execute a file says the same two words.
    "permission denied (": (
        "permission denied: ssh must get in without a password; put your public key there with"
        " ssh-copy-id, or name the user as ssh://USER@HOST"
    ),
    "connection refused": "no ssh server listens there",
    "connection timed out": "nobody answers there",
    "no route to host": "there is no way to that host",
    "network is unreachable": "there is no way to that host",
    "no space left on device": "the board's disk is full",
    "timeout, server": "the connection was lost: the board does not answer",
    "connection reset": "the connection was lost",
    "connection closed": "the connection was lost: the board closed it",
    "closed by remote host": "the connection was lost: the board closed it",
    "broken pipe": "the connection was lost",
}
_BITS_32 = re.compile(r"armv[4-8]|arm$|i[3-6]86|mips$|riscv32|ppc$")


@dataclass(frozen=True)
class SshHost:
    """A board, see `deploy.remote.remote_host.RemoteHost`.

    Attributes
    ----------
    name : str
        Its device name.
    destination : tuple of str
        What ssh is told of it: options, then ``--`` and the host.
    folder : str
        The board's folder for all that is pushed.
    architecture : str
        As ``uname -m`` names it.
    """

    name: str
    destination: tuple[str, ...]
    folder: str = ""
    architecture: str = ""

    def traits(self) -> HostTraits:
        """Tell what it is; the server finds out by itself whether it is emulated."""
        return HostTraits(self.architecture)

    def shell(self, line: str, limit_s: float = _SHELL_S) -> Answer:
        """Run a line in its shell.

        Raises
        ------
        Failure
            If it cannot be reached.
        """
        answer = self._answer(self.shell_command(f"echo {_BEGINS}; {line}"), b"", limit_s)
        # What comes first is of the user's start-up files.
        return replace(answer, output=answer.output.partition(f"{_BEGINS}\n")[2])

    def shell_command(self, line: str) -> Command:
        """Return what runs a line there, with our standard input and output as its own."""
        return self._command(line, "-o", "ClearAllForwardings=yes")

    def push(self, files: Path, folder: str) -> None:
        """Send all files of a folder into a folder there.

        Raises
        ------
        Failure
            If there is no room, or it is gone.
        """
        command = self.shell_command(f"tar -xzf - -C {shlex.quote(folder)}")
        answer = self._answer(command, _packed(files), _PUSH_S)
        if answer.status:
            raise Failure(f"{self.name}: cannot send the server: {self.why_lost(answer.errors)}")

    @contextmanager
    def forwarded(self, port: int) -> Iterator[int]:
        """Let a free port of this machine lead to one of the board, for a block's length.

        Raises
        ------
        Failure
            If ssh may not forward.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ours = int(probe.getsockname()[1])
        way = f"127.0.0.1:{ours}:127.0.0.1:{port}"
        # ssh listens before it runs the line, which ends when this program does, however.
        command = self._command("echo open && cat", "-o", "ExitOnForwardFailure=yes", "-L", way)
        process = subprocess.Popen(
            command.words, env=dict(command.environment), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            _wait_until_open(self, process)
            yield ours
        finally:
            end_by_input(process)

    def why_lost(self, said: str) -> str:
        """Say in one line why a command ended that should not have, from its last words."""
        for line in reversed(said.strip().splitlines()):
            for words, meaning in _MEANINGS.items():
                if words in line.lower():
                    return meaning
        lines = said.strip().splitlines()
        return printable_line(lines[-1]) if lines else "the connection was lost"

    def _command(self, line: str, *options: str) -> Command:
        """Return what runs a line in a plain shell, whatever the user's own is."""
        settings = (part for item in _OPTIONS.items() for part in ("-o", "=".join(item)))
        # What is pushed is executed: nobody else may write there.
        there = f"exec sh -c {shlex.quote(f'umask 077; {line}')}"
        words = (_ssh(), "-T", *settings, *options, *self.destination, there)
        return Command(words, _environment())

    def _answer(self, command: Command, sent: bytes, limit_s: float) -> Answer:
        try:
            answer = run_bounded(command, limit_s, sent)
        except TimeoutError:
            raise Failure(f"{self.name}: no answer within {limit_s:.0f} s") from None
        if answer.status == _SSH_FAILED:
            raise Failure(f"{self.name}: {self.why_lost(answer.errors)}")
        return answer


def connect_ssh(name: str, user: str, host: str, port: int) -> SshHost:
    """Find out whether a board can be reached, and what it is.

    Parameters
    ----------
    name : str
        Its device name, for people.
    user, host : str
        As ssh takes them; an empty user leaves the choice to ssh's own configuration.
    port : int
        Of its ssh server; 0 leaves the choice to ssh.

    Raises
    ------
    Failure
        When ssh cannot get there without asking, or no server runs on such a board.
    """
    who = ("-l", user) if user else ()
    where = ("-p", str(port)) if port else ()
    destination = (*who, *where, "--", host)
    reached = SshHost(name, destination)
    answer = reached.shell('uname -s; uname -m; echo "$HOME"')
    told = [printable_line(line) for line in answer.output.splitlines()]
    if answer.status or len(told) != 3:
        raise Failure(
            f"{name}: the board's shell runs no commands: {reached.why_lost(answer.errors)}"
        )
    system, machine, home = told
    _require_served(name, system, machine)
    if not re.fullmatch(r"/[\w./+-]*", home):
        raise Failure(f"{name}: the home folder {home!r} cannot be used: it has odd letters")
    return SshHost(name, destination, f"{home}/.cache/shuffledeploy/pushed", machine)


def _require_served(name: str, system: str, machine: str) -> None:
    """Refuse boards that no server is built for."""
    if system != "Linux":
        raise Failure(f"{name} runs {system}: the server runs on Linux")
    if machine == "aarch64" or machine == platform.machine() == "x86_64":
        return
    kind = "32-bit" if _BITS_32.match(machine) else "no aarch64"
    raise Failure(f"{name} is {machine}, {kind}: libraries are built for 64-bit ARM, aarch64")


def _wait_until_open(host: SshHost, process: subprocess.Popen[bytes]) -> None:
    """Wait for the word that the far end says once ssh forwards."""
    late = threading.Timer(_FORWARD_S, process.kill)
    late.start()
    said = process.stdout
    assert said
    complaints: deque[bytes] = deque(maxlen=_LAST_COMPLAINTS)
    reader = threading.Thread(target=_read_to_the_end, args=(process, complaints), daemon=True)
    reader.start()
    try:
        is_open = any(line.strip() == b"open" for line in iter(lambda: said.readline(100), b""))
    finally:
        late.cancel()
    if not is_open:
        process.kill()
        reader.join(_END_S)
        reason = host.why_lost(b"".join(complaints).decode(errors="replace"))
        raise Failure(f"{host.name}: ssh forwards no port: {reason}")


def _read_to_the_end(process: subprocess.Popen[bytes], complaints: deque[bytes]) -> None:
    """Keep the last complaints: a pipe that nobody reads would stop ssh when it is full."""
    assert process.stderr
    while line := process.stderr.readline(_LONGEST_COMPLAINT):
        complaints.append(line)


def _packed(files: Path) -> bytes:
    """Pack the files of a folder, owned by nobody in particular."""

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6) as archive:
        for file in sorted(files.iterdir()):
            archive.add(file, file.name, filter=anonymous)
    return packed.getvalue()


def _environment() -> Mapping[str, str]:
    """Return ssh's environment; its messages are read, so they are to be English."""
    return {**os.environ, "LC_ALL": "C"}


def _ssh() -> str:
    found = shutil.which("ssh")
    if found is None:
        raise Failure("there is no ssh on this machine's PATH: install the package openssh-client")
    return found
