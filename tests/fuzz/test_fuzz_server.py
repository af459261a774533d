"""Whatever is thrown at the server of devices, it lives, serves the next, and leaks nothing."""

from __future__ import annotations

import contextlib
import platform
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_peers import SERVER_MAGIC
from tvm import rpc

from shuffledeploy.deploy.on_device.native_server import ensure_server

#: Of what a clean server takes; a page more or less is no leak.
_ROOM_KIB = 512


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[str]
    port: int
    work: Path

    def send(self, content: bytes, answers: int = 0, more: bytes = b"") -> None:
        """Connect, send, read some bytes, send more, hang up."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=1) as peer,
        ):
            peer.sendall(content)
            if answers:
                peer.recv(answers)
            peer.sendall(more)

    def serves(self) -> bool:
        """Whether a client is served."""
        session = rpc.connect("127.0.0.1", self.port, session_timeout=20)
        return "native" in str(session.get_function("shuffledeploy.describe")())

    def children(self) -> str:
        """List sessions' processes, zombies too."""
        return self._read(f"task/{self.process.pid}/children")

    def memory(self) -> int:
        """Return what it takes, in KiB."""
        (line,) = (row for row in self._read("status").splitlines() if row.startswith("VmRSS"))
        return int(line.split()[1])

    def files(self) -> int:
        """Count what it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def folders(self) -> int:
        """Count the folders of sessions."""
        (own,) = self.work.iterdir()
        return len(list(own.iterdir()))

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self.process.pid}/{name}").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    built, work = ensure_server(platform.machine()), tmp_path_factory.mktemp("work")
    options = ["--watch", "--session-seconds", "0.5", "--work", str(work)]
    process = subprocess.Popen(
        [*built.command, *options], cwd=built.folder, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    started = _Server(process, int(process.stdout.readline().split()[1]), work)
    assert started.serves()
    _settle(started)
    before = (started.files(), started.memory())
    yield started
    assert process.poll() is None
    assert started.serves()
    _settle(started)
    assert started.files() == before[0]
    assert started.memory() <= before[1] + _ROOM_KIB
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()
    assert not any(work.iterdir())


def _settle(server: _Server) -> None:
    """Wait for the last session to go, with its folder."""
    deadline = time.monotonic() + 10
    while (server.children() or server.folders()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not server.children()
    assert not server.folders()


def _greeting(text: bytes = b"client:") -> bytes:
    return struct.pack("<ii", SERVER_MAGIC, len(text)) + text


NUMBERS = st.sampled_from([0, 1, -1, 7, 512, 513, 2**31 - 1, -(2**31), SERVER_MAGIC])
OPTIONS = st.sampled_from([b"nan", b"inf", b"-1", b"0.01", b"1e300", b"x"])
GREETINGS = st.one_of(
    st.binary(max_size=40),
    st.tuples(NUMBERS, NUMBERS, st.binary(max_size=600)).map(
        lambda part: struct.pack("<ii", part[0], part[1]) + part[2]
    ),
    st.integers(0, 15).map(lambda end: _greeting()[:end]),
    OPTIONS.map(lambda value: _greeting(b"client: -timeout=" + value)),
    st.binary(max_size=30).map(lambda key: _greeting(b"client:" + key)),
)
SIZES = st.sampled_from([0, 1, 8, 100, 2**20, 2**40, 2**62, 2**64 - 1])
PACKETS = st.lists(
    st.tuples(SIZES | st.none(), st.integers(-1, 20), st.binary(max_size=80)), max_size=4
)


@given(GREETINGS)
def test_greetings(server: _Server, greeting: bytes) -> None:
    server.send(greeting)
    assert server.process.poll() is None


@given(PACKETS)
@settings(max_examples=60)
def test_sessions(server: _Server, packets: list[tuple[int | None, int, bytes]]) -> None:
    sent = b""
    for size, code, content in packets:
        body = struct.pack("<i", code) + content
        sent += struct.pack("<Q", len(body) if size is None else size) + body
    server.send(_greeting(), len(_greeting(b"server:")) - 4, sent)
    assert server.process.poll() is None


def test_a_thousand_connections_hold_up_nobody(server: _Server) -> None:
    peers = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(1000)]
    assert server.serves()
    for peer in peers:
        peer.close()
