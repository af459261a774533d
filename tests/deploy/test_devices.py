"""Names of devices, and devices that are no emulated board."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import tiny_bundle

from shuffledeploy.compiler.cores import CORES
from shuffledeploy.deploy.board.guests import find_core
from shuffledeploy.deploy.device import main
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.devices.opening import open_device
from shuffledeploy.deploy.estimate.elf_symbols import Function, function_at, read_functions
from shuffledeploy.deploy.runtime.device_fit import check_fits
from shuffledeploy.model.errors import Failure, UsageError


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "names no device"),
        ("phone", "names no device"),
        ("emulated:", "names no device"),
        ("emulated:cortex-m4", "cannot be emulated"),
        ("emulated:cortex-a-53", "did you mean cortex-a53"),
        ("local:1", "names no device"),
        ("rpc://somewhere", "names no device"),
        ("rpc://somewhere:99999", "is no port"),
        ("rpc://somewhere:0", "is no port"),
        ("rpc://somewhere:9090/key", "ends at its port"),
        ("tracker://somewhere:9190", "lacks the board's key"),
        ("tracker://somewhere:9190/", "names no device"),
    ],
)
def test_a_malformed_name_is_the_users_mistake(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint), open_device(text):
        pass


def test_names_are_taken_apart() -> None:
    assert parse_device_name("emulated", default_core="cortex-a57").core == "cortex-a57"
    assert parse_device_name("emulated:cortex-a55").core == "cortex-a55"
    tracked = parse_device_name("tracker://somewhere:9190/kitchen/pi")
    assert (tracked.host, tracked.port, tracked.key) == ("somewhere", 9190, "kitchen/pi")


def test_stand_ins_have_the_same_instructions() -> None:
    for core in CORES.values():
        assert find_core(core.qemu).features.split()[:8] == core.features.split()[:8]


def test_a_board_that_is_not_there_is_a_failure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(Failure, match="nothing listens"), open_device(f"rpc://127.0.0.1:{port}"):
        pass
    with (
        pytest.raises(Failure, match="no tracker answers"),
        open_device(f"tracker://127.0.0.1:{port}/key"),
    ):
        pass


def test_this_machine_is_a_device_that_counts_nothing() -> None:
    with open_device("local") as device:
        assert device.information.architecture == platform.machine()
        assert not device.is_emulated
        with pytest.raises(UsageError, match="cannot count"):
            device.count(lambda: None, None)


def test_a_stock_server_tells_what_it_can(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle", reason="TVM's RPC server needs the package cloudpickle")
    command = [sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1",
               "--port", "9091", "--port-end", "9199"]  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 60
        while "bind to" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        port = int(log.read_text().split("bind to")[1].split()[0].rpartition(":")[2])
        with open_device(f"rpc://127.0.0.1:{port}") as device:
            assert device.is_emulated is None
            assert "whether it is emulated" in check_fits(tiny_bundle().manifest, device)
            assert device.information.architecture == platform.machine()
            assert device.information.features is None
            absent = tmp_path / "text.so"
            absent.write_text("no library")
            with pytest.raises(Failure, match="no shared library"):
                device.upload_and_load(absent)
            assert device.session.get_function("tvm.rpc.server.workpath")("x")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_symbols_are_those_of_the_library(known_library: Path) -> None:
    functions = read_functions(known_library)
    names = {function.name: function for function in functions}
    assert {"__tvm_ffi_known", "__tvm_ffi_crash"} <= set(names)
    known = names["__tvm_ffi_known"]
    assert function_at(functions, known.address + known.size - 4) == known.name
    assert function_at([Function(8, 4, "only")], 12) == "(other)"
    assert function_at([Function(8, 4, "only")], 4) == "(other)"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["start", "--core", "cortex-m0"], 2),
        (["start", "--board", "raspberry-pi-44"], 2),
        (["start", "--key", "k"], 2),
        (["start", "--tracker", "nowhere"], 2),
        (["start", "--tracker", "127.0.0.1:1", "--key", "k"], 1),
        (["stop", "every"], 2),
    ],
)
def test_commands_refuse_in_one_line(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
