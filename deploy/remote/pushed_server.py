"""The native server on a device: pushed once, started, waited for, ended, with nothing left."""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.board.places import step
from shuffledeploy.deploy.on_device.native_server import NativeServer, ensure_server
from shuffledeploy.deploy.remote.bounded_command import end_by_input
from shuffledeploy.deploy.remote.device_folder import device_folder, require
from shuffledeploy.deploy.remote.remote_host import HostTraits, RemoteHost
from shuffledeploy.model.errors import Failure

READY_S = 30.0
_READY = re.compile(r"ready ([1-9][0-9]{0,4})")
_LAST_WORDS = 5
_LONGEST_WORDS = 2000
#: What an ended command said last is in its pipe; its descendants may hold the pipe open.
_LAST_WORDS_S = 2.0


@dataclass(frozen=True)
class ServerWishes:
    """How the server is to be started.

    Attributes
    ----------
    core : str
        Where sessions run: ``big``, ``little``, a number, ``any``.
    port : int
        Where it listens on the device; 0 takes a free port.
    tracker, key : str
        Where it registers, as the device reaches it, and as what; empty for nowhere.
    announced_port : int
        The port that the tracker is told; 0 for its own.
    """

    core: str = "big"
    port: int = 0
    tracker: str = ""
    key: str = ""
    announced_port: int = 0

    def options(self, traits: HostTraits) -> list[str]:
        """Return the server's options."""
        options = ["--port", str(self.port), "--core", self.core]
        if traits.is_emulated:
            options.append("--emulated")
        if traits.counts:
            options += ["--counts", traits.counts]
        if self.tracker:
            options += ["--tracker", self.tracker, "--key", self.key]
            options += ["--announce-port", str(self.announced_port or self.port)]
        return options


class _Said:
    """What a server says, read by a thread: the port at which it is ready, and its last words."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.port: int | None = None
        self._is_known = threading.Event()
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        while line := process.stdout.readline(_LONGEST_WORDS):
            said = line.decode(errors="replace").strip()
            if self.port is None and (told := _READY.fullmatch(said)):
                self.port = int(told[1])
                self._is_known.set()
            else:
                self._words.append(said)
        self._is_known.set()

    def is_known_within(self, patience_s: float) -> bool:
        """Wait until the port is told, or will never be."""
        return self._is_known.wait(patience_s)

    def last_words(self) -> str:
        """Return what it said last but for its port, once it has ended."""
        self._reader.join(_LAST_WORDS_S)
        return "\n".join(self._words)


@dataclass(frozen=True)
class RunningServer:
    """A server that runs on a device.

    Attributes
    ----------
    port : int
        Where it listens, on the device.
    """

    port: int
    _process: subprocess.Popen[bytes]
    _said: _Said
    _host: RemoteHost

    def why_ended(self, patience_s: float) -> str | None:
        """Say why it ended, None if it did not in so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
            return self._host.why_lost(self._said.last_words())
        return None


def ensure_pushed(host: RemoteHost, server: NativeServer) -> str:
    """Send the server to a device that does not have it; return the folder in which it is there.

    Raises
    ------
    Failure
        If there is no room, or the device is gone.
    """
    place = f"{host.folder}/{server.digest}"
    asked = f"[ -x {place}/{Path(server.command[-1]).name} ] && echo there"
    if host.shell(asked).output.split() == ["there"]:
        return place
    size_kib = -(-sum(file.stat().st_size for file in server.folder.iterdir()) // 1024)
    with (
        step(f"push the server to {host.name}, {size_kib / 1024:.1f} MiB, once"),
        # Whole or not at all: two commands may push at once, and cables are pulled.
        device_folder(host, "draft", size_kib) as draft,
    ):
        host.push(server.folder, draft)
        line = f"chmod 755 {draft}/* && {{ [ -d {place} ] || mv {draft} {place}; }}"
        require(host, line, "put the server in its place")
    return place


@contextmanager
def running_server(host: RemoteHost, wishes: ServerWishes) -> Iterator[RunningServer]:
    """Run the server on a device for the length of a block; it ends also if this program is killed.

    Raises
    ------
    Failure
        If the device cannot run it, has no room or is gone; says why.
    """
    traits = host.traits()
    server = ensure_server(traits.architecture)
    place = ensure_pushed(host, server)
    work = f"{host.folder}/work-{secrets.token_hex(4)}"
    options = ["--work", work, "--watch", *wishes.options(traits)]
    # The shell stays: it removes what sessions kept, after the server has seen its input close.
    started = shlex.join([*server.command, *options])
    command = host.shell_command(f"mkdir {work} && cd {place} && {started}; rm -rf {work}")
    process = subprocess.Popen(
        command.words, env=dict(command.environment), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = _Said(process)
    try:
        yield RunningServer(_port_when_ready(host, said), process, said, host)
    finally:
        end_by_input(process)


def _port_when_ready(host: RemoteHost, said: _Said) -> int:
    """Return the port at which the server came up."""
    if not said.is_known_within(READY_S):
        raise Failure(f"{host.name}: the server does not come up within {READY_S:.0f} s")
    if said.port is None:
        raise Failure(f"{host.name}: {host.why_lost(said.last_words())}")
    return said.port


def remove_pushed(host: RemoteHost) -> None:
    """Remove from a device all that was ever pushed there.

    Raises
    ------
    Failure
        If that cannot be, or the device is gone.
    """
    require(host, f"rm -rf {host.folder}", f"remove {host.folder}")
