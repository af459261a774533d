"""Boards go with the command that started them, and nobody else can reach them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny import tiny_bundle

from shuffledeploy.deploy.board.places import state_folder
from shuffledeploy.deploy.devices.opening import Device

if TYPE_CHECKING:
    from tests.conftest import Leftovers


@pytest.mark.emulated
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_ended_leaves_no_board(
    board_built: None, leftovers: Leftovers, number: signal.Signals
) -> None:
    """It is ended while the board infers, again and again, to be counted."""
    bundle = str(tiny_bundle("cortex-a72").path)
    command = [sys.executable, "-m", "shuffledeploy.deploy.run", bundle, "--count", "--device",
               "emulated"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], env=leftovers.environment, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    # The server, and its session.
    while sum("qemu" in line for line in leftovers.processes()) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    # Other tests have boards of their own at the same time.
    lines = " ".join(leftovers.processes())
    folders = set(re.findall(rf"{re.escape(str(state_folder()))}/[0-9a-f]+", lines))
    assert folders
    process.send_signal(number)
    process.communicate(timeout=20)
    leftovers.assert_none_within(5)
    assert not any(Path(folder).exists() for folder in folders)


@pytest.mark.emulated
def test_a_board_listens_on_this_machine_alone(emulated_device: Device) -> None:
    assert emulated_device.board is not None
    port = f":{emulated_device.board.port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(port)]
        assert listening == (["0100007F" + port] if table == "/proc/net/tcp" else [])
