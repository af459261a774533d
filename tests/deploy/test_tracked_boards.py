"""A tracker's emulated boards as the tuner's score: all count alike, one that dies is missed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from doubling import ARM, doubling, doubling_kernels

from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tuning.score import KernelObject
from shuffledeploy.compiler.tuning.search.candidates import build_calls, build_candidate
from shuffledeploy.deploy.devices.board_process import Board, running_board
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.devices.trackers import Tracker
from shuffledeploy.deploy.scoring.tracked_boards import BoardScore
from shuffledeploy.deploy.scoring.tuning_devices import require, score
from shuffledeploy.model.errors import Failure, UsageError

pytestmark = pytest.mark.emulated

KEY = "two-a72"


@pytest.fixture(scope="module")
def boards(board_built: None, tracker: str) -> Iterator[list[Board]]:
    with ExitStack() as stack:
        yield [stack.enter_context(running_board(tracker=tracker, key=KEY)) for _ in range(2)]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> list[KernelObject]:
    return doubling_kernels(tmp_path_factory.mktemp("kernels"))


def _name(tracker: str) -> str:
    return f"tracker://{tracker}/{KEY}"


def test_boards_count_alike_and_the_death_of_one_loses_nothing(
    boards: list[Board], tracker: str, kernels: list[KernelObject]
) -> None:
    said: list[str] = []
    farm = BoardScore(parse_device_name(_name(tracker)), ARM, is_emulated=True, tell=said.append)
    try:
        # As many as are free are taken in while there is work.
        results = farm(kernels * 3)
        assert farm.boards == 2
        small, large = results[0], results[1]
        assert isinstance(small, float)
        assert isinstance(large, float)
        assert small < large
        assert results == [small, large] * 15
        os.killpg(boards[0].pid, signal.SIGKILL)
        assert farm(kernels) == [small, large] * 5
        assert farm.boards == 1
        assert farm.warnings == []
    finally:
        farm.close()


def test_what_boards_cannot_give_is_refused_at_once(boards: list[Board], tracker: str) -> None:
    with pytest.raises(UsageError, match="emulated: the time"):
        require(ARM, _name(tracker), "latency")
    with pytest.raises(Failure, match=f"no board with key 'absent'; it has .*{KEY}"):
        require(ARM, f"tracker://{tracker}/absent", None)
    with score(ARM, _name(tracker), "instructions") as counted:
        assert counted.unit == "instructions"
        assert "emulated board" in counted.source


@pytest.fixture(scope="module")
def stock_board(tracker: str) -> Iterator[str]:
    """Run TVM's own server on this machine: a real board, as far as anyone can tell."""
    key = "this-machine"
    command = [sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1", "--port", "9391",
               "--port-end", "9491", "--tracker", tracker, "--key", key]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    name = f"tracker://{tracker}/{key}"
    try:
        deadline = time.monotonic() + 60
        while not Tracker(parse_device_name(name)).free():
            assert time.monotonic() < deadline, "TVM's server did not register"
            time.sleep(0.2)
        yield name
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_real_board_measures_and_counts_nothing(stock_board: str, tmp_path: Path) -> None:
    host = find_target("host")
    calls, built = build_calls([doubling(64)], host, tmp_path)
    build_candidate(*calls[0])
    with score(host, stock_board, None) as measured:
        assert measured.unit == "ns"
        assert measured.source.startswith("measured: ")
        first, again = measured(built * 2)
        assert isinstance(first, float)
        assert isinstance(again, float)
        assert min(first, again) > 0
    with pytest.raises(UsageError, match="count nothing"), score(host, stock_board, "instructions"):
        pass
