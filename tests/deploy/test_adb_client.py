"""The real adb client and the emulated phone: files, shells, ports, and all that goes wrong."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from group_members import group_members

from shuffledeploy.deploy.phone import connected_phones
from shuffledeploy.deploy.phone.adb_client import AdbClient, PhoneLink
from shuffledeploy.deploy.phone.adb_program import AdbProgram, find_adb
from shuffledeploy.deploy.phone.connected_phones import find_phone, find_phones
from shuffledeploy.deploy.phone.emulated_phone.phone_process import (
    PhoneProcess,
    list_phones,
    pull_cable,
    running_phone,
)
from shuffledeploy.deploy.phone.emulated_phone.phone_system import WRITABLE
from shuffledeploy.deploy.phone.emulated_phone.phone_traits import PhoneTraits
from shuffledeploy.deploy.remote.bounded_command import LONGEST_ANSWER
from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.errors import Failure, UsageError

if TYPE_CHECKING:
    from tests.conftest import Leftovers

pytestmark = pytest.mark.emulated


@pytest.fixture(scope="module")
def link(phone: PhoneProcess) -> PhoneLink:
    return find_phone(phone.serial)


def test_a_shell_tells_its_status_and_runs_aarch64(link: PhoneLink) -> None:
    told = link.shell("uname -m; getprop ro.boot.qemu; echo wrong >&2; exit 3")
    assert told.status == 3
    assert told.output.split() == ["aarch64", "1"]
    assert told.errors.split() == ["wrong"]
    assert link.shell("ls /lib /system/lib64").status != 0


def test_files_come_back_as_they_went(link: PhoneLink, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "sent").write_bytes(content)
    link.require("make a folder", "shell", f"mkdir -p {WRITABLE}/there")
    link.push([tmp_path / "sent"], f"{WRITABLE}/there", limit_s=20)
    link.require("pull", "pull", f"{WRITABLE}/there/sent", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content
    assert link.shell(f"ls {WRITABLE}/there").output.split() == ["sent"]
    assert link.shell(f"rm -r {WRITABLE}/there").status == 0
    with pytest.raises(Failure, match="Permission denied"):
        link.push([tmp_path / "sent"], "/system/bin", limit_s=20)


@pytest.mark.parametrize("way", [PhoneLink.forwarded, PhoneLink.reversed])
def test_a_port_leads_to_the_other_side_until_it_is_freed(
    link: PhoneLink, way: Callable[[PhoneLink, int], AbstractContextManager[int]]
) -> None:
    """An emulated phone has this machine's ports, so both ends are here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with way(link, server.getsockname()[1]) as other:
            with socket.create_connection(("127.0.0.1", other), 5) as asked:
                answered, _ = server.accept()
                asked.sendall(b"question")
                assert answered.recv(8) == b"question"
                answered.sendall(b"answer")
                assert asked.recv(8) == b"answer"
                answered.close()
                assert asked.recv(8) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other), 5).close()


@pytest.mark.parametrize(
    ("traits", "complaint"),
    [
        (PhoneTraits(welcome="unauthorized"), "allow USB debugging on its screen"),
        (PhoneTraits(welcome="silent"), "it is offline: unplug it"),
    ],
)
def test_a_phone_that_lets_nobody_in_is_refused_in_seconds(
    phones_built: None, traits: PhoneTraits, complaint: str
) -> None:
    with running_phone(traits) as closed, pytest.raises(Failure, match=complaint):
        find_phone(closed.serial)


def test_a_phone_that_waits_for_its_user_is_not_passed_over(phones_built: None) -> None:
    with running_phone() as other, running_phone(PhoneTraits(welcome="unauthorized")) as waiting:
        with pytest.MonkeyPatch.context() as patch:
            _users_phones(patch, waiting)
            with pytest.raises(Failure, match="allow USB debugging on its screen"):
                find_phone()
            _users_phones(patch, other)
            AdbClient(find_adb(), {}).run(["connect", waiting.serial])
            with pytest.raises(UsageError, match="there are 2 phones"):
                find_phone()


def test_a_pulled_cable_is_said(phones_built: None) -> None:
    with running_phone() as pulled:
        link = find_phone(pulled.serial)
        pull_cable(pulled)
        deadline = time.monotonic() + 5
        with pytest.raises(Failure, match=r"cable pulled|plug it in again"):
            while time.monotonic() < deadline:
                link.shell("true")
        with pytest.raises(Failure, match=r"cable pulled|plug it in again"):
            find_phone(pulled.serial)


def _users_phones(monkeypatch: pytest.MonkeyPatch, *phones: PhoneProcess) -> None:
    """Take the adb server of the first phone for the user's, and connect the others to it."""
    for name, value in phones[0].client_settings().items():
        if name != "HOME":  # where adb itself is found
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(connected_phones, "list_phones", list)
    client = AdbClient(find_adb(), {})
    for other in phones[1:]:
        client.run(["connect", other.serial])


def test_of_several_phones_one_has_to_be_named(
    phone: PhoneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_phone() as second:
        with pytest.MonkeyPatch.context() as patch:
            _users_phones(patch, second)
            assert find_phone().serial == second.serial
            _users_phones(patch, second, phone)
            names = rf"there are 2 phones: .*{re.escape(phone.name)}"
            with pytest.raises(UsageError, match=names):
                find_phone()
            assert find_phone(phone.serial).name == phone.name
            with pytest.raises(Failure, match=f"adb:absent is not there; there is .*{phone.name}"):
                find_phone("absent")


def test_an_emulated_phone_that_ends_meanwhile_is_not_there(
    phone: PhoneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_phone() as ended:
        pass
    _users_phones(monkeypatch, phone)
    monkeypatch.setattr(connected_phones, "list_phones", lambda: [ended])
    assert [link.serial for link in find_phones()] == [phone.serial]


def test_without_a_phone_one_is_asked_for(
    phones_built: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_phone() as gone:
        _users_phones(monkeypatch, gone)
        AdbClient(find_adb(), {}).run(["disconnect", gone.serial])
        with pytest.raises(Failure, match=r"adb sees no phone: .*enable USB debugging"):
            find_phone()


def test_a_server_of_another_version_is_left_alone(
    phone: PhoneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    _users_phones(monkeypatch, phone)
    monkeypatch.setattr(connected_phones, "_server_version", lambda port: 32)
    fetched = AdbProgram(find_adb().executable, is_users=False)
    monkeypatch.setattr(connected_phones, "find_adb", lambda: fetched)
    with pytest.raises(Failure, match=r"version 1\.0\.32 runs"):
        find_phone()


def _using_a_fetched_adb(port: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a program that looks for phones by a fetched adb, and then waits."""
    code = (
        "from shuffledeploy.deploy.phone import adb_program, connected_phones\n"
        "connected_phones.find_adb = adb_program._fetched_adb\n"
        "print(connected_phones.find_phones(), flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    settings = {"ANDROID_ADB_SERVER_PORT": str(port), "ADB_USB": "0", "ADB_EMU": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
        env={**environment, **settings}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline().startswith("[")
    return process


def test_the_server_of_a_fetched_adb_ends_with_its_last_user(
    phones_built: None, leftovers: Leftovers
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    first, last = (_using_a_fetched_adb(port, leftovers.environment) for _ in range(2))
    first.kill()
    first.communicate()
    time.sleep(2.5)  # longer than the first one's watcher waits
    assert any("fork-server" in line for line in leftovers.processes())
    last.kill()
    last.communicate()
    leftovers.assert_none_within(10)
    lock = cache_folder() / f".adb-server-{port}.lock"
    assert list(cache_folder().glob(f".adb-server-{port}*")) == [lock]
    lock.unlink()


def test_an_adb_that_hangs_ends_in_time(tmp_path: Path) -> None:
    hanging = tmp_path / "adb"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    with pytest.raises(Failure, match=r"'adb devices' does not end within 0\.2 s"):
        AdbClient(AdbProgram(hanging, is_users=True), {}).run(["devices"], limit_s=0.2)


def test_a_phone_that_talks_without_end_is_cut_short(phone: PhoneProcess, link: PhoneLink) -> None:
    assert len(link.shell("cat /dev/zero").output) <= LONGEST_ANSWER
    # As on a phone, its next word to nobody ends it.
    deadline = time.monotonic() + 10
    while any("proot" in line for line in group_members(phone.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_emulated_phone_ends_with_the_program_that_started_it(
    phones_built: None, leftovers: Leftovers, number: signal.Signals
) -> None:
    code = (
        "from shuffledeploy.deploy.phone.emulated_phone.phone_process import start_phone\n"
        "import time; print(start_phone().pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=leftovers.environment,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout
    pid = int(process.stdout.readline())
    (started,) = [phone for phone in list_phones() if phone.pid == pid]
    shell = find_phone(started.serial).client.command(["-s", started.serial, "shell", "sleep 60"])
    client = subprocess.Popen(shell.words, env=dict(shell.environment), stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not any("proot" in line for line in group_members(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=20)
    leftovers.assert_none_within(5)
    assert group_members(pid) == []
    client.wait(timeout=10)
    # Other tests may start phones meanwhile.
    assert pid not in {phone.pid for phone in list_phones()}
    assert not Path(started.folder).exists()


@pytest.mark.parametrize("garbage", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000, bytes(24)])
def test_an_emulated_phone_outlives_who_speaks_no_adb(
    phone: PhoneProcess, link: PhoneLink, garbage: bytes
) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", phone.port), 5) as stranger:
            with contextlib.suppress(ConnectionError):
                stranger.sendall(garbage)
    assert link.shell("echo alive").output.strip() == "alive"


def test_an_emulated_phone_listens_on_this_machine_alone(phone: PhoneProcess) -> None:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        listening = [row[1].rpartition(":") for row in rows if row[3] == "0A"]
        for port in (phone.port, phone.adb_port):
            hosts = {host for host, _, number in listening if int(number, 16) == port}
            assert hosts <= {"0100007F", "00000000000000000000000001000000"}
