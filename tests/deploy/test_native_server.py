"""The server that devices run: what it tells, what it runs, what it refuses, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import rpc

from shuffledeploy.compiler.native_tools import compile_c
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.on_device.native_server import NativeServer, ensure_server

_HELLO = struct.pack("<ii", 0xFF271, len("client:")) + b"client:"


@dataclass
class Running:
    """A server on this machine."""

    process: subprocess.Popen[str]
    port: int
    work: Path

    def connect(self, seconds: float = 60) -> rpc.RPCSession:
        """Begin a session."""
        return rpc.connect("127.0.0.1", self.port, session_timeout=seconds)

    def children(self) -> list[int]:
        """Return the processes of sessions, zombies too."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in tasks.read_text().split()]


@pytest.fixture(scope="module")
def server() -> NativeServer:
    return ensure_server(platform.machine())


@contextmanager
def _started(
    server: NativeServer, work: Path, *options: str, under: Emulator | None = None
) -> Iterator[Running]:
    emulation = [str(under.qemu), "-U", "LD_LIBRARY_PATH"] if under else []
    process = subprocess.Popen(
        [*emulation, *server.command, "--watch", "--work", str(work), *options],
        cwd=server.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=under.environment() if under else None,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    try:
        word, port = process.stdout.readline().split()
        assert word == "ready"
        yield Running(process, int(port), work)
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def running(server: NativeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with _started(server, tmp_path_factory.mktemp("work")) as started:
        yield started


def _refusal(server: NativeServer, *options: str) -> str:
    done = subprocess.run(
        [*server.command, *options], cwd=server.folder, check=False, capture_output=True,
        text=True, timeout=20, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def _eventually_no(work: Path) -> bool:
    deadline = time.monotonic() + 10
    while any(work.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(work.iterdir())


def test_tells_what_the_device_is(running: Running) -> None:
    session = running.connect()
    told = json.loads(str(session.get_function("shuffledeploy.describe")()))
    assert told["server"] == "native"
    assert told["tvm_version"] == tvm.__version__
    assert told["architecture"] == platform.machine()
    assert told["emulated"] is False
    processor = json.loads(str(session.get_function("shuffledeploy.processor")()))
    assert processor["core"] in os.sched_getaffinity(0)
    assert set(processor) == {"core", "present_khz", "highest_khz", "millidegrees"}


@pytest.mark.emulated
def test_knows_that_it_is_emulated_without_being_told(emulator: Emulator, tmp_path: Path) -> None:
    with _started(ensure_server(), tmp_path, under=emulator) as started:
        told = json.loads(str(started.connect().get_function("shuffledeploy.describe")()))
    assert told["emulated"] is True
    assert told["architecture"] == "aarch64"


def test_the_pushed_folder_is_flat_and_small() -> None:
    server = ensure_server()
    sizes = [file.stat().st_size for file in server.folder.iterdir() if file.is_file()]
    assert len(sizes) == len(list(server.folder.iterdir()))
    assert sum(sizes) <= 11e6


def test_calls_a_plain_c_library(running: Running, tmp_path: Path) -> None:
    source = tmp_path / "plain.c"
    source.write_text(
        "int add(const float *a, const float *b, float *c) { for (int i = 0; i < 4; ++i)"
        " c[i] = a[i] + b[i]; return 7; }"
    )
    compile_c(source, tmp_path / "plain.so", ("-shared", "-fPIC", "-nostdlib"))
    session = running.connect()
    session.upload(str(tmp_path / "plain.so"), "plain.so")
    values = np.arange(4, dtype="float32")
    tensors = [tvm.runtime.tensor(part, session.cpu()) for part in (values, values, 0 * values)]
    call = session.get_function("shuffledeploy.call_c")
    assert call("plain.so", "add", *tensors) == 7
    np.testing.assert_array_equal(tensors[2].numpy(), 2 * values)
    with pytest.raises(RuntimeError, match="no symbol subtract"):
        call("plain.so", "subtract")
    with pytest.raises(RuntimeError, match=r"cannot load .*absent\.so"):
        call("absent.so", "add")
    with pytest.raises(RuntimeError, match="argument 2 is no tensor"):
        call("plain.so", "add", "text")


def test_other_addresses_need_the_flag_that_says_so(server: NativeServer) -> None:
    assert "needs --allow-remote" in _refusal(server, "--listen-on", "0.0.0.0")
    assert "no IPv4 address" in _refusal(server, "--listen-on", "everywhere")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--port", "70000"), "is no port"),
        (("--tracker", "nowhere"), "give HOST:PORT"),
        (("--tracker", "127.0.0.1:1"), "needs a --key"),
        (("--tracker", "127.0.0.1:1", "--key", "k"), "no tracker answers"),
        (("--key", 'a"b'), "other than quotes"),
        (("--core", "4096"), "no core that may be used"),
        (("--work", "/no/such/folder"), "No such file"),
        (("stray",), "is no option"),
    ],
)
def test_refuses_in_one_line(
    server: NativeServer, options: tuple[str, ...], complaint: str
) -> None:
    assert complaint in _refusal(server, *options)


def test_a_session_is_pinned_to_the_core_asked_for(server: NativeServer, tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    with _started(server, tmp_path, "--core", str(core)) as started:
        session = started.connect()
        told = json.loads(str(session.get_function("shuffledeploy.describe")()))
        assert told["core"] == core
        # What is called before a latency is measured: TVM's own pinning stays out of it.
        session.get_function("runtime.config_threadpool")(1, 1)
        assert os.sched_getaffinity(told["pid"]) == {core}


def test_a_session_that_takes_too_long_is_ended(server: NativeServer, tmp_path: Path) -> None:
    with _started(server, tmp_path, "--session-seconds", "1") as started:
        session = started.connect()
        describe = session.get_function("shuffledeploy.describe")
        pid = json.loads(str(describe()))["pid"]
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(RuntimeError, match="RPCSessionTimeoutError"):
            describe()
        assert started.connect().get_function("shuffledeploy.describe")()


def test_ends_with_its_starter_and_takes_sessions_and_files_along(
    server: NativeServer, tmp_path: Path
) -> None:
    with _started(server, tmp_path) as started:
        session = started.connect()
        session.upload(__file__, "file")
        (child,) = started.children()
        assert started.process.stdin
        started.process.stdin.close()
        assert started.process.wait(10) == 0
        assert not Path(f"/proc/{child}").exists()
        assert _eventually_no(tmp_path)


def test_ends_where_it_has_no_input_to_watch(server: NativeServer, tmp_path: Path) -> None:
    words = [*server.command, "--watch", "--work", str(tmp_path)]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *words], cwd=server.folder, timeout=20,
        check=False, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert not any(tmp_path.iterdir())


def test_servers_that_start_together_share_a_folder(server: NativeServer, tmp_path: Path) -> None:
    for _ in range(5):
        starting = [
            subprocess.Popen(
                [*server.command, "--watch", "--work", str(tmp_path)], cwd=server.folder,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for _ in range(8)
        ]  # fmt: skip
        try:
            ready = [process.stdout.readline() for process in starting if process.stdout]
            assert [word[:6] for word in ready] == [b"ready "] * len(starting)
            assert len(list(tmp_path.iterdir())) == len(starting)
        finally:
            for process in starting:
                process.communicate(timeout=20)


def test_what_a_killed_server_left_is_removed_by_the_next(
    server: NativeServer, tmp_path: Path
) -> None:
    with _started(server, tmp_path) as started:
        session = started.connect()
        (child,) = started.children()
        started.process.kill()
        started.process.wait()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not Path(f"/proc/{child}").exists()
        del session
    assert len(list(tmp_path.iterdir())) == 1
    with _started(server, tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert not any(tmp_path.iterdir())


def test_half_greetings_hold_up_nobody(running: Running) -> None:
    silent = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(100)]
    for place, connection in enumerate(silent):
        with contextlib.suppress(OSError):
            connection.sendall(_HELLO[: place % len(_HELLO)])
    assert running.connect().get_function("shuffledeploy.describe")()
    for connection in silent:
        connection.close()


def test_a_stock_tracker_gives_it_away_again_and_again(
    server: NativeServer, tmp_path: Path, tracker: str
) -> None:
    host, _, port = tracker.rpartition(":")
    with _started(server, tmp_path, "--tracker", tracker, "--key", "native"):
        for _ in range(3):
            session = rpc.connect_tracker(host, int(port)).request("native", session_timeout=60)
            assert session.get_function("shuffledeploy.describe")()
            session.get_function("CloseRPCConnection")()
