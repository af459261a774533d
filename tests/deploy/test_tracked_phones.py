"""Phones as boards of a tracker: a tuning run uses all of them, and times none that is emulated.

What this proves of real phones: that servers register through ``adb reverse``, are reached by the
ports that they announce, take candidates in turns and are given back. Emulated phones count in
place of measuring; a count is no latency, and asking for one is refused.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from doubling import ARM, doubling_kernels
from tiny import SIDE, Tiny

from shuffledeploy.compiler.tune import main as tune
from shuffledeploy.compiler.tuning.score import KernelObject
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.devices.trackers import Tracker
from shuffledeploy.deploy.phone.connected_phones import find_phone
from shuffledeploy.deploy.phone.emulated_phone.phone_process import (
    PhoneProcess,
    running_phone,
    stop_phone,
)
from shuffledeploy.deploy.scoring.tracked_boards import BoardScore
from shuffledeploy.deploy.scoring.tuning_devices import require
from shuffledeploy.model.errors import UsageError

pytestmark = pytest.mark.emulated

KEY = "two-phones"


@pytest.fixture(scope="module")
def phones(phones_built: None) -> Iterator[list[PhoneProcess]]:
    with ExitStack() as stack:
        yield [stack.enter_context(running_phone()) for _ in range(2)]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> list[KernelObject]:
    return doubling_kernels(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def served(phones: list[PhoneProcess], tracker: str) -> Iterator[str]:
    """Offer both phones to the tracker, as a user would."""
    command = [sys.executable, "-m", "shuffledeploy.deploy.device", "adb", "serve",
               *(phone.serial for phone in phones), "--tracker", tracker, "--key", KEY]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout
    try:
        for phone in phones:
            assert phone.name in process.stdout.readline()
        yield f"tracker://{tracker}/{KEY}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    for phone in (phone for phone in phones if phone.is_running):
        link = find_phone(phone.serial)
        assert link.client.run(["forward", "--list"]).output.strip() == ""
        assert link.client.run(link.arguments("reverse", "--list")).output.strip() == ""


def test_a_tuning_run_scores_on_phones(
    served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, report = tmp_path / "tiny.pt2", tmp_path / "report.json"
    example = (torch.zeros(1, 3, SIDE, SIDE),)
    torch.export.save(torch.export.export(Tiny(False).eval(), example), program)
    arguments = [
        "--target", "arm", "--program", str(program), "--trials", "6", "--device", served,
        "--score", "instructions", "--logs", str(tmp_path / "logs"), "--output",
        str(tmp_path / "bundle"), "--json", str(report),
    ]  # fmt: skip
    assert tune(arguments) == 0
    assert "holds" in capsys.readouterr().out
    written = json.loads(report.read_text())
    assert written["parity"]["passed"] is True
    records = [file.read_text() for file in (tmp_path / "logs").rglob("*.jsonl")]
    assert "emulated board" in "".join(records)
    assert tune([*arguments, "--score", "latency"]) == 2
    assert "is emulated" in capsys.readouterr().err


def test_both_phones_work_at_once_and_one_that_goes_is_missed_by_nobody(
    served: str,
    phones: list[PhoneProcess],
    kernels: list[KernelObject],
) -> None:
    with pytest.raises(UsageError, match="emulated: the time"):
        require(ARM, served, "latency")
    name = parse_device_name(served)
    deadline = time.monotonic() + 30
    while Tracker(name).free() < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    farm = BoardScore(name, ARM, is_emulated=True, tell=lambda _: None)
    try:
        results = farm(kernels * 3)
        assert farm.boards == 2
        small, large = results[:2]
        assert isinstance(small, float)
        assert results == [small, large] * 15
        stop_phone(phones[0])
        assert farm(kernels) == [small, large] * 5
        assert farm.boards == 1
    finally:
        farm.close()
