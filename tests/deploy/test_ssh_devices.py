"""Boards over the user's own ssh: pushed once, used, ended; what goes wrong is one line."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ssh_board import SshBoard, ssh_board
from tiny import tiny_bundle
from tvm import te

from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tuning.score import MEASURED_UNIT
from shuffledeploy.compiler.tuning.search.candidates import build_calls, build_candidate
from shuffledeploy.deploy.devices.opening import open_device
from shuffledeploy.deploy.on_device.native_server import ensure_server
from shuffledeploy.deploy.run import main
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.parity import check_parity
from shuffledeploy.deploy.scoring.tuning_devices import score
from shuffledeploy.model.errors import Failure, UsageError

if TYPE_CHECKING:
    from tests.conftest import Leftovers

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def running_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshBoard]:
    try:
        with ssh_board(tmp_path_factory.mktemp("keys")) as board:
            yield board
    except Failure as error:
        pytest.skip(f"no ssh server: {error}")


@pytest.fixture
def board(running_board: SshBoard, monkeypatch: pytest.MonkeyPatch) -> SshBoard:
    monkeypatch.setenv("PATH", f"{running_board.client}:/usr/bin:/bin")
    return running_board


@pytest.fixture
def chatty(board: SshBoard) -> Iterator[SshBoard]:
    """Let the board greet whoever logs in."""
    greeting = board.home / ".ssh/rc"
    greeting.parent.mkdir(exist_ok=True)
    greeting.write_text("echo Features: none\necho '{welcome}'\n")
    yield board
    greeting.unlink()


def _processes_of(board: SshBoard) -> list[str]:
    """Return what runs out of the board's home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(board.home) in words:
            found.append(words)
    return found


def _nothing_is_left(board: SshBoard) -> bool:
    pushed = board.home / ".cache/shuffledeploy/pushed"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        names = [entry.name for entry in pushed.iterdir()]
        if not _processes_of(board) and names == [ensure_server(platform.machine()).digest]:
            return True
        time.sleep(0.05)
    return False


def test_a_bundle_answers_as_pytorch_does_and_nothing_is_left(board: SshBoard) -> None:
    bundle = tiny_bundle()
    for _ in range(2):
        with open_network(bundle, "ssh://board") as network:
            assert check_parity(network, bundle).passed
            assert network.device.is_emulated is False
            assert network.device.information.architecture == platform.machine()
            assert network.unchecked == ()
        assert _nothing_is_left(board)


def test_the_server_is_pushed_once(chatty: SshBoard, capsys: pytest.CaptureFixture[str]) -> None:
    with open_device("ssh://board"):
        pass
    capsys.readouterr()
    with open_device("ssh://board"):
        pass
    assert "push the server" not in capsys.readouterr().err


def test_the_runner_is_heard_on_a_board_that_greets(
    chatty: SshBoard, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tiny_bundle(standalone=True).path)
    assert main([path, "--runner", "--device", "ssh://board", "--runs", "4"]) == 0
    assert "measured on" in " ".join(capsys.readouterr().out.split())
    assert _nothing_is_left(chatty)


def test_a_latency_is_measured(board: SshBoard, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny_bundle().library.parent), "--device", "ssh://board", "--runs", "4"]) == 0
    assert "measured on" in " ".join(capsys.readouterr().out.split())


def test_the_tuner_times_candidates_there(board: SshBoard, tmp_path: Path) -> None:
    target = find_target("host")
    left = te.placeholder((32,), name="left")
    twice = te.create_prim_func([left, te.compute((32,), lambda i: left[i] * 2, name="twice")])
    calls, built = build_calls([twice], target, tmp_path)
    for call in calls:
        build_candidate(*call)
    with score(target, "ssh://board", "latency") as scored:
        (value,) = scored(built)
        assert scored.unit == MEASURED_UNIT
    assert isinstance(value, float)
    assert value > 0
    assert _nothing_is_left(board)


def test_an_arm_library_is_refused_by_an_x86_board(board: SshBoard) -> None:
    if platform.machine() == "aarch64":
        pytest.skip("the board is this machine, which is an ARM one")
    with (
        pytest.raises(UsageError, match="built for aarch64"),
        open_network(tiny_bundle("arm"), "ssh://board"),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("ssh://stranger", "permission denied"),
        ("ssh://unknown-key", "does not know the board's key"),
        ("ssh://closed", "no ssh server listens"),
        ("ssh://no-such-host.invalid", "no host of that name"),
    ],
)
def test_why_a_board_cannot_be_reached(board: SshBoard, name: str, complaint: str) -> None:
    with pytest.raises(Failure, match=complaint) as told, open_device(name):
        pass
    assert len(str(told.value).splitlines()) == 1


def test_a_program_that_may_not_be_executed_is_no_matter_of_keys(board: SshBoard) -> None:
    with open_device("ssh://board"):
        pass
    server = ensure_server(platform.machine())
    program = board.home / ".cache/shuffledeploy/pushed" / server.digest / server.command[0]
    pushed = program.read_bytes()
    program.write_text("#!/etc/passwd\n")
    try:
        with pytest.raises(Failure, match=r"(?i)permission denied$"), open_device("ssh://board"):
            pass
    finally:
        program.write_bytes(pushed)


def test_a_full_disk_is_seen_before_anything_is_sent(board: SshBoard) -> None:
    (board.home / "bin").mkdir()
    disk = board.home / "bin/df"
    disk.write_text("#!/bin/sh\necho disk 1000 990 10 99% /\n")
    disk.chmod(0o755)
    pushed = board.home / ".cache/shuffledeploy/pushed"
    shutil.rmtree(pushed, ignore_errors=True)
    try:
        with pytest.raises(Failure, match="too little room"), open_device("ssh://board"):
            pass
    finally:
        disk.unlink()


def _children(process: int) -> list[int]:
    return [int(child) for child in
            Path(f"/proc/{process}/task/{process}/children").read_text().split()]  # fmt: skip


def _connections(board: SshBoard) -> list[int]:
    """Return the ssh server's processes of connections: of each one that watches, and its child."""
    watching = _children(board.process.pid)
    return [*watching, *(child for process in watching for child in _children(process))]


def test_a_lost_connection_is_a_failure_and_leaves_nothing(board: SshBoard) -> None:
    with pytest.raises(Failure, match="lost"), open_device("ssh://board") as device:
        describe = device.session.get_function("shuffledeploy.describe")
        assert describe()
        for process in _connections(board):
            os.kill(process, signal.SIGKILL)
        describe()
    assert _nothing_is_left(board)


@pytest.mark.parametrize(
    "block",
    ["open_device('ssh://board')",
     "device_folder(host_of(parse_device_name('ssh://board')), 'runner', 1)"],
)  # fmt: skip
def test_a_program_that_is_killed_leaves_nothing(
    board: SshBoard, leftovers: Leftovers, block: str
) -> None:
    with open_device("ssh://board"):
        pass
    code = (
        "import time; from shuffledeploy.deploy.devices.opening import open_device\n"
        "from shuffledeploy.deploy.devices.device_names import parse_device_name\n"
        "from shuffledeploy.deploy.devices.reached_devices import host_of\n"
        "from shuffledeploy.deploy.remote.device_folder import device_folder\n"
        f"with {block}: print('open', flush=True); time.sleep(60)"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
        env=leftovers.environment, cwd=PROJECT,
    )  # fmt: skip
    assert program.stdout
    assert program.stdout.readline() == "open\n"
    program.kill()
    program.wait()
    program.stdout.close()
    leftovers.assert_none_within(10)
    assert _nothing_is_left(board)
