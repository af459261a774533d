"""Bundles on phones by adb: proven, counted, never timed where emulated, refused in one line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from group_members import group_members
from test_run import copy, edit
from tiny import tiny_bundle

import shuffledeploy
from shuffledeploy.compiler.bundle.folder import load_bundle
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.deploy.device import main as manage
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.devices.opening import open_device
from shuffledeploy.deploy.phone.connected_phones import find_phone
from shuffledeploy.deploy.phone.emulated_phone.phone_process import (
    PhoneProcess,
    pull_cable,
    running_phone,
)
from shuffledeploy.deploy.phone.emulated_phone.phone_traits import PhoneTraits
from shuffledeploy.deploy.phone.phone_host import FOLDER, PhoneHost
from shuffledeploy.deploy.remote import device_folder
from shuffledeploy.deploy.remote.pushed_server import ServerWishes
from shuffledeploy.deploy.run import main
from shuffledeploy.deploy.runtime.execution import start_network
from shuffledeploy.deploy.scoring.tuning_devices import require
from shuffledeploy.model.errors import Failure, UsageError

pytestmark = [pytest.mark.emulated, pytest.mark.long]


def _pushed(phone: PhoneProcess) -> list[str]:
    """List what lies in our folder on a phone."""
    return find_phone(phone.serial).shell(f"ls -A {FOLDER}").output.split()


def _forwarded(phone: PhoneProcess) -> str:
    return find_phone(phone.serial).client.run(["forward", "--list"]).output.strip()


def _gone_within(seconds: float, still_there: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while still_there() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not still_there()


def test_a_run_proves_and_counts_and_leaves_the_server_for_the_next_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], phones_built: None
) -> None:
    report = tmp_path / "report.json"
    with running_phone() as phone:
        arguments = [str(tiny_bundle("cortex-a72").path), "--device", phone.name]
        assert main([*arguments, "--json", str(report)]) == 0
        first = capsys.readouterr()
        assert "once" in first.err
        assert "holds" in first.out
        assert "Emulated phone" in first.out
        assert " ms" not in first.out
        written = json.loads(report.read_text())
        assert written["device"]["kind"] == "adb"
        assert written["device"]["is_emulated"] is True
        assert written["instructions"]["kind"] == "counted"
        (digest,) = _pushed(phone)
        assert _forwarded(phone) == ""
        assert main(arguments) == 0
        assert "once" not in capsys.readouterr().err
        assert _pushed(phone) == [digest]
        assert manage(["adb", "clean", phone.serial]) == 0
        assert _pushed(phone) == []


def test_a_phone_counts_what_a_board_counts(phone: PhoneProcess) -> None:
    bundle = tiny_bundle("cortex-a72")
    totals = []
    for name in (phone.name, "emulated:cortex-a72"):
        with open_device(name) as device:
            network = start_network(bundle, device)
            network.set_inputs(bundle.reference_inputs()[0])
            network.invoke()
            totals.append(device.count(network.invoke, bundle.library).total)
    assert totals[0] == totals[1]


def test_an_emulated_phone_is_never_timed(
    phone: PhoneProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle("cortex-a72")
    assert main([str(bundle.path), "--device", phone.name, "--latency"]) == 2
    assert "is emulated" in capsys.readouterr().err
    with pytest.raises(UsageError, match="emulated: the time"):
        require(find_target("arm"), phone.name, "latency")


def test_one_program_with_the_network_inside_runs_on_a_phone(
    phone: PhoneProcess, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report, before = tmp_path / "report.json", _pushed(phone)
    bundle = str(tiny_bundle("cortex-a72", standalone=True).path)
    assert main([bundle, "--runner", "--device", phone.name, "--json", str(report)]) == 0
    text = capsys.readouterr().out
    assert f"{phone.name} (Emulated phone, cortex-a72)" in text
    assert "the bench runner" in text and "holds" in text and " ms" not in text
    device = json.loads(report.read_text())["device"]
    assert device["model"] == "Emulated phone" and device["cpu"] == "cortex-a72"
    assert _pushed(phone) == before


def test_the_python_interface_takes_phones_and_cores(phone: PhoneProcess) -> None:
    bundle = tiny_bundle("cortex-a72")
    assert shuffledeploy.check_parity(bundle, phone.name).passed
    with shuffledeploy.open_bundle(bundle, phone.name, core="little") as run:
        answer = run(bundle.reference_inputs()[0][0])
    assert np.allclose(answer, bundle.reference_outputs()[0][0], atol=1e-4)


def test_sessions_run_on_the_core_that_is_asked_for(phone: PhoneProcess) -> None:
    first = min(os.sched_getaffinity(0))
    for core, expected in (("big", None), (str(first), first), ("little", first), ("any", None)):
        with open_device(phone.name, pinned_to=core) as device:
            pinned = device.information.pinned_core
            assert (pinned is None) is (core == "any")
            assert expected in (None, pinned)
    with (
        pytest.raises(Failure, match="'4000' is no core that may be used"),
        open_device(phone.name, pinned_to="4000"),
    ):
        pass
    with pytest.raises(UsageError, match="--core goes with"), open_device("local", pinned_to="big"):
        pass
    with pytest.raises(UsageError, match="is no core"), open_device(phone.name, pinned_to="fast"):
        pass


@pytest.mark.parametrize(
    ("traits", "complaint"),
    [
        (PhoneTraits(abi="armeabi-v7a"), "armeabi-v7a: 32-bit, and no arm64-v8a phone"),
        (PhoneTraits(abi="x86_64"), "x86_64: no arm64-v8a phone"),
        (PhoneTraits(room_kib=9000), r"too little room in .*: 8\.8 MiB are free, 13\.\d are"),
    ],
)
def test_a_phone_that_cannot_run_the_server_is_refused(
    phones_built: None, traits: PhoneTraits, complaint: str
) -> None:
    with running_phone(traits) as unfit:
        with pytest.raises(Failure, match=complaint), open_device(unfit.name):
            pass
        assert _pushed(unfit) == []


def test_a_disk_that_fills_up_in_the_middle_is_said(
    phones_built: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_folder, "require_room", lambda host, size: None)
    with running_phone(PhoneTraits(room_kib=5000)) as full:
        find_phone(full.serial).shell(f"mkdir -p {FOLDER}")
        with pytest.raises(Failure, match="no room left"), open_device(full.name):
            pass
        # Half a server is none.
        assert _pushed(full) == []


def test_a_core_that_lacks_a_feature_is_named(phone: PhoneProcess, tmp_path: Path) -> None:
    path = copy(tiny_bundle("cortex-a72").path, tmp_path)
    edit(path, cpu="cortex-a76", features=["asimd", "asimddp"])
    with (
        open_device(phone.name) as device,
        pytest.raises(UsageError, match="lacks asimddp"),
    ):
        start_network(load_bundle(path), device)


def test_a_library_for_another_machine_is_refused_before_anything_is_pushed(
    phones_built: None, capsys: pytest.CaptureFixture[str]
) -> None:
    if tiny_bundle().manifest.architecture == "aarch64":
        pytest.skip("this machine's libraries run on phones")
    with running_phone() as phone:
        assert main([str(tiny_bundle().path), "--device", phone.name]) == 2
        assert "is aarch64" in capsys.readouterr().err
        assert _pushed(phone) == []


def test_a_cable_that_is_pulled_in_the_middle_is_said(phones_built: None) -> None:
    bundle = tiny_bundle("cortex-a72")
    with running_phone() as phone:
        pattern = rf"{re.escape(phone.name)}: it is (gone: was the cable|offline: unplug)"
        with pytest.raises(Failure, match=pattern), open_device(phone.name) as device:
            network = start_network(bundle, device)
            threading.Timer(0.3, pull_cable, [phone]).start()
            while True:
                network.run(bundle.reference_inputs()[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_ended_leaves_nothing_on_the_phone(
    phone: PhoneProcess, number: signal.Signals
) -> None:
    with open_device(phone.name):
        pass
    before = _pushed(phone)
    code = (
        "from shuffledeploy.deploy.devices.opening import open_device\n"
        f"with open_device({phone.name!r}):\n"
        "    print('opened', flush=True)\n"
        "    import time; time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout
    assert process.stdout.readline() == b"opened\n"
    assert len(_pushed(phone)) == len(before) + 1
    assert _forwarded(phone) != ""
    assert "tvm_rpc_server" in " ".join(group_members(phone.pid))
    process.send_signal(number)
    process.wait(timeout=10)
    assert _gone_within(5, lambda: _pushed(phone) != before)
    assert _gone_within(5, lambda: _forwarded(phone))
    assert _gone_within(5, lambda: "tvm_rpc_server" in " ".join(group_members(phone.pid)))


def test_nobody_else_may_write_where_the_phone_executes(phone: PhoneProcess) -> None:
    with open_device(phone.name):
        folder = Path(phone.folder) / "root" / FOLDER.lstrip("/")
        assert {place.stat().st_mode & 0o77 for place in (folder, *folder.iterdir())} == {0}


def test_phones_are_listed_and_stopped(
    phones_built: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert manage(["start", "--phone", "--background"]) == 0
    told = capsys.readouterr().out
    name = told.split()[0]
    assert f"--device {name}" in told
    serial = parse_device_name(name).serial
    try:
        assert find_phone(serial).name == name
        assert manage(["list"]) == 0
        (row,) = [line for line in capsys.readouterr().out.splitlines() if name in line]
    finally:
        pid = re.search(r"process (\d+)", told)
        assert pid
        assert manage(["stop", pid[1]]) == 0
    assert row.split()[0] == pid[1]
    assert f"stopped {name}" in capsys.readouterr().out
    assert manage(["list"]) == 0
    assert name not in capsys.readouterr().out


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["start", "--phone", "--tracker", "127.0.0.1:9", "--key", "k"], "--phone takes no --port"),
        (["adb", "serve", "--tracker", "10.0.0.1:9190", "--key", "k"], "is not on this machine"),
        (["adb", "serve", "--tracker", "9190", "--key", "k"], "is no tracker"),
        (["adb", "serve", "--tracker", "127.0.0.1:9", "--key", "k", "--core", "x"], "is no core"),
    ],
)
def test_mistakes_with_phones_end_in_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert manage(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert complaint in line


@pytest.mark.smoke
def test_names_of_phones_are_taken_apart() -> None:
    assert parse_device_name("adb").serial == ""
    for serial in ("R58M123ABCD", "127.0.0.1:5555", "adb-R58-x1._adb-tls-connect._tcp", "[::1]:5"):
        assert parse_device_name(f"adb:{serial}").serial == serial
    for text in ("adb:", "adb:a b", "adb:-s", "adb:$(x)", "adb://1.2.3.4:5"):
        with pytest.raises(UsageError, match="names no device"):
            parse_device_name(text)


def test_a_phone_that_says_that_it_is_emulated_is_believed(phone: PhoneProcess) -> None:
    traits = PhoneHost(find_phone(phone.serial)).traits()
    assert traits.is_emulated
    assert "--emulated" in ServerWishes().options(traits)
