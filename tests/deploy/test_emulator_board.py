"""The emulated board computes right, counts exactly, survives its sessions, and ends with us."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tvm
from tiny import tiny_bundle
from tvm import te

from shuffledeploy.deploy.devices import sessions
from shuffledeploy.deploy.devices.board_process import Board, list_boards, running_board
from shuffledeploy.deploy.devices.opening import Device, open_device
from shuffledeploy.model.errors import Failure, UsageError

pytestmark = [pytest.mark.emulated, pytest.mark.long]

_COMMAND = [sys.executable, str(Path(__file__).parents[2] / "deploy" / "device.py")]


def _matmul_object(folder: Path, triple: str, core: str) -> Path:
    """Compile a 16x16 matrix product for one architecture."""
    left, right = (te.placeholder((16, 16), name=name) for name in "AB")
    inner = te.reduce_axis((0, 16), name="k")
    product = te.compute(
        (16, 16), lambda i, j: te.sum(left[i, inner] * right[inner, j], axis=inner), name="C"
    )
    function = te.create_prim_func([left, right, product]).with_attr("global_symbol", "matmul")
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": core})
    built = tvm.compile(tvm.IRModule({"matmul": function}), target=target)
    path = folder / f"{triple}.o"
    built.mod.write_to_file(str(path), "o")
    return path


def _children(group: int) -> list[int]:
    """Return the living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


def _eventually(holds: Callable[[], bool]) -> bool:
    """Wait for something to become true, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_computes_over_rpc(
    emulated_device: Device, tmp_path: Path, link_shared: Callable[[Path], Path]
) -> None:
    library = link_shared(_matmul_object(tmp_path, "aarch64-linux-gnu", "cortex-a72"))
    function = emulated_device.upload_and_load(library)["matmul"]
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((16, 16), dtype="float32") for _ in range(2))
    cpu = emulated_device.session.cpu()
    output = tvm.runtime.tensor(np.zeros((16, 16), "float32"), cpu)
    tensors = [tvm.runtime.tensor(left, cpu), tvm.runtime.tensor(right, cpu), output]
    function(*tensors)
    np.testing.assert_allclose(output.numpy(), left @ right, rtol=1e-5, atol=1e-6)

    first = emulated_device.count(lambda: function(*tensors), library)
    again = emulated_device.count(lambda: function(*tensors), library)
    assert first == again
    assert (
        first.total
        == sum(first.symbols.values())
        == first.by_kernel(tiny_bundle().manifest)["matmul"]
    )
    # 4096 multiply-adds, four to a vector at most.
    assert first.total > 16**3 / 4


def test_counts_a_known_function_exactly(emulated_device: Device, known_library: Path) -> None:
    function = emulated_device.upload_and_load(known_library)["known"]
    counts = emulated_device.count(function, known_library)
    assert counts.symbols == {"__tvm_ffi_known": 203}
    assert emulated_device.count(function, None).total > 203


def test_tells_what_it_is(emulated_device: Device) -> None:
    information = emulated_device.information
    assert information.architecture == "aarch64"
    assert information.cpu == "cortex-a72"
    assert information.tvm_version == tvm.__version__
    assert information.features is not None
    assert "asimd" in information.features
    assert "asimddp" not in information.features


def test_a_foreign_library_is_refused_and_the_server_lives_on(
    emulated_device: Device,
    known_library: Path,
    tmp_path: Path,
    link_shared: Callable[[Path], Path],
) -> None:
    foreign = link_shared(_matmul_object(tmp_path, "x86_64-linux-gnu", "x86-64"))
    with pytest.raises(Failure, match="built for x86_64, the device is aarch64"):
        emulated_device.upload_and_load(foreign)
    assert emulated_device.upload_and_load(known_library)["known"]


def test_counting_wants_a_loaded_library(emulated_device: Device, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="upload and load it first"):
        emulated_device.count(lambda: None, tmp_path / "absent.so")


@pytest.fixture(scope="module")
def tracked_board(board_built: None, tracker: str) -> Iterator[Board]:
    with running_board("cortex-a76", tracker=tracker, key="test-a76") as board:
        yield board


def test_a_tracker_gives_the_board(tracked_board: Board, known_library: Path) -> None:
    name = f"tracker://{tracked_board.tracker}/test-a76"
    for _ in range(2):
        with open_device(name) as device:
            assert device.information.cpu == "cortex-a76"
            function = device.upload_and_load(known_library)["known"]
            assert device.count(function, known_library).total == 203


def test_a_tracker_without_the_key_says_which_it_has(tracked_board: Board) -> None:
    with (
        pytest.raises(Failure, match="no board with key 'absent'; it has test-a76"),
        open_device(f"tracker://{tracked_board.tracker}/absent"),
    ):
        pass


def test_a_board_that_hangs_is_a_failure(tracked_board: Board) -> None:
    name = f"tracker://{tracked_board.tracker}/test-a76"
    with (
        pytest.raises(Failure, match="did not answer within 1 s"),
        open_device(name, timeout_s=1) as device,
    ):
        describe = device.session.get_function("shuffledeploy.describe")
        os.killpg(tracked_board.pid, signal.SIGSTOP)
        try:
            describe()
        finally:
            os.killpg(tracked_board.pid, signal.SIGCONT)


def test_a_session_that_crashes_is_a_failure_and_the_next_is_served(
    tracked_board: Board, known_library: Path
) -> None:
    name = f"tracker://{tracked_board.tracker}/test-a76"
    with pytest.raises(Failure, match="the connection was lost"), open_device(name) as device:
        device.upload_and_load(known_library)["crash"]()
    with open_device(name) as device:
        assert (
            device.count(device.upload_and_load(known_library)["known"], known_library).total == 203
        )


def test_a_board_killed_in_the_middle_leaves_nothing(board_built: None) -> None:
    started = subprocess.run(
        [*_COMMAND, "start", "--background", "--board", "raspberry-pi-3b+"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    name = started.stdout.split()[0]
    (board,) = (board for board in list_boards() if board.name == name)
    listed = subprocess.run([*_COMMAND, "list"], check=True, capture_output=True, text=True)
    assert f"{board.pid}  {name}  cortex-a53" in listed.stdout
    with pytest.raises(Failure, match="the connection was lost"), open_device(name) as device:
        assert len(_children(board.pid)) > 1
        describe = device.session.get_function("shuffledeploy.describe")
        os.kill(board.pid, signal.SIGKILL)
        assert _eventually(lambda: not _children(board.pid))
        describe()
    assert board.pid not in [other.pid for other in list_boards()]
    assert not Path(board.folder).exists()


def test_a_board_ends_with_the_program_that_started_it(board_built: None) -> None:
    program = subprocess.Popen([*_COMMAND, "start"], stdout=subprocess.PIPE, text=True)
    assert program.stdout
    name = program.stdout.readline().split()[0]
    (board,) = (board for board in list_boards() if board.name == name)
    program.kill()
    program.wait()
    assert _eventually(lambda: not _children(board.pid))


def test_stop_names_what_runs(tracked_board: Board) -> None:
    done = subprocess.run([*_COMMAND, "stop", "1"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert str(tracked_board.pid) in done.stderr


def test_a_port_in_use_is_refused_before_the_start(board_built: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        done = subprocess.run(
            [*_COMMAND, "start", "--port", str(taken.getsockname()[1])],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert "cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_board_is_a_failure(tracked_board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CONNECT_S", 2.0)
    with (
        open_device(f"tracker://{tracked_board.tracker}/test-a76"),
        pytest.raises(Failure, match="no session within 2 s"),
        open_device(f"tracker://{tracked_board.tracker}/test-a76"),
    ):
        pass
