"""What the tests of deployment share: the emulated board, or the reason why there is none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shuffledeploy.compiler.native_tools import compile_c, zig
from shuffledeploy.deploy.board.qemu import Emulator, ensure_emulator
from shuffledeploy.deploy.devices.opening import Device, open_device
from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools, ensure_llvm_tools
from shuffledeploy.deploy.on_device.native_server import ensure_server
from shuffledeploy.deploy.phone.adb_program import find_adb
from shuffledeploy.deploy.phone.emulated_phone.phone_process import PhoneProcess, running_phone
from shuffledeploy.deploy.phone.emulated_phone.phone_system import ensure_phone_files
from shuffledeploy.deploy.run import main
from shuffledeploy.model.errors import Failure


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    """QEMU with the counting plugin."""
    try:
        return ensure_emulator()
    except Failure as error:
        pytest.skip(f"no emulator: {error}")


@pytest.fixture(scope="session")
def tools() -> LlvmTools:
    """LLVM's tools."""
    try:
        return ensure_llvm_tools()
    except Failure as error:
        pytest.skip(f"no llvm-mca: {error}")


@pytest.fixture(scope="session")
def board_built(emulator: Emulator) -> None:
    """See to it that boards can be started."""
    try:
        ensure_server()
    except Failure as error:
        pytest.skip(f"no emulated board: {error}")


@pytest.fixture(scope="session")
def emulated_device(board_built: None) -> Iterator[Device]:
    """Share one emulated Cortex-A72; one session, so do not crash it."""
    with open_device("emulated:cortex-a72") as device:
        yield device


@pytest.fixture(scope="session")
def phones_built(emulator: Emulator) -> None:
    """See to it that emulated phones can be started."""
    try:
        ensure_phone_files()
        find_adb()
    except Failure as error:
        pytest.skip(f"no emulated phone: {error}")


@pytest.fixture(scope="session")
def phone(phones_built: None) -> Iterator[PhoneProcess]:
    """Share one emulated phone; do not pull its cable."""
    with running_phone() as started:
        yield started


@pytest.fixture(scope="session")
def known_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an ARM library: ``known`` takes 203 instructions, ``crash`` and ``hang`` do so."""
    folder = tmp_path_factory.mktemp("known")
    source = folder / "known.c"
    known = r"mov x9, #100\n 1: subs x9, x9, #1\n b.ne 1b\n mov w0, #0\n ret"
    bodies = {"known": known, "crash": r"mov x9, #0\n ldr x9, [x9]\n ret", "hang": "b ."}
    source.write_text(
        "\n".join(
            f'__attribute__((naked)) int __tvm_ffi_{name}(void) {{ __asm__ volatile("{body}"); }}'
            for name, body in bodies.items()
        )
    )
    compile_c(source, folder / "known.o", ("-c", "-fPIC", "-target", "aarch64-linux-musl"))
    return _link_shared(folder / "known.o")


@pytest.fixture(scope="session")
def link_shared() -> Callable[[Path], Path]:
    """Return the function that links one object into a library beside it."""
    return _link_shared


def _link_shared(path: Path) -> Path:
    """Link one object into a library beside it."""
    library = path.with_suffix(".so")
    subprocess.run([str(zig()), "ld.lld", "-shared", "-o", library, path], check=True)
    return library


def _wait_until_listening(place: str) -> None:
    """TVM says "bind to" before it listens."""
    host, _, port = place.rpartition(":")
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture(scope="session")
def tracker() -> Iterator[str]:
    """Run TVM's own tracker."""
    for needed in ("tornado", "cloudpickle"):
        pytest.importorskip(needed, reason=f"TVM's tracker needs the package {needed}")
    command = [sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", "127.0.0.1",
               "--port", "9190", "--port-end", "9290"]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout
    try:
        for line in process.stdout:
            if "bind to" in line:
                place = line.split("bind to", 1)[1].strip()
                _wait_until_listening(place)
                yield place
                break
        else:
            pytest.fail("TVM's tracker did not start")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str], int], str]:
    """Run deploy/run.py: it must end with this status and one line, which is given."""

    def run(arguments: list[str], status: int) -> str:
        assert main(arguments) == status
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    return run
