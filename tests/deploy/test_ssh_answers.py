"""What ssh and a board may answer: names, odd machines, silence, talk without end."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.devices.opening import open_device
from shuffledeploy.deploy.remote.ssh_host import SshHost
from shuffledeploy.model.errors import Failure, UsageError

PROJECT = Path(__file__).resolve().parents[2]


def _pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put another ssh on the PATH."""
    fake = tmp_path / "ssh"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.smoke
def test_names_are_taken_apart() -> None:
    whole = parse_device_name("ssh://pi@kitchen.local:2222")
    assert (whole.kind, whole.user, whole.host, whole.port) == ("ssh", "pi", "kitchen.local", 2222)
    short = parse_device_name("ssh://kitchen")
    assert (short.user, short.host, short.port) == ("", "kitchen", 0)


@pytest.mark.smoke
@pytest.mark.parametrize(
    "text",
    ["ssh://", "ssh://-oProxyCommand=x", "ssh://-x@host", "ssh://host:0", "ssh://host:70000",
     "ssh://a b", "ssh://host/key", "ssh://host;reboot"],
)  # fmt: skip
def test_names_that_ssh_could_misread_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_device_name(text)


@pytest.mark.parametrize(
    ("system", "machine", "complaint"),
    [
        ("Linux", "armv7l", "armv7l, 32-bit"),
        ("Linux", "i686", "i686, 32-bit"),
        ("Linux", "riscv64", "riscv64, no aarch64"),
        ("Linux", "x86_64", "x86_64, no aarch64"),
        ("Darwin", "arm64", "runs Darwin"),
    ],
)
def test_other_machines_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, complaint: str
) -> None:
    says = f"printf 'shuffledeploy-begins\\n{system}\\n{machine}\\n/home/pi\\n'"
    _pretend(tmp_path, monkeypatch, says)
    # An x86_64 machine would have a server for boards that are x86_64, too.
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(Failure, match=complaint), open_device("ssh://board"):
        pass


def test_a_board_that_talks_without_end_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(tmp_path, monkeypatch, "exec yes")
    with pytest.raises(Failure, match="runs no commands"), open_device("ssh://board"):
        pass


def test_a_board_that_says_nothing_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(Failure, match="no answer within 1 s"):
        SshHost("ssh://board", ("--", "board")).shell("true", 1.0)


def test_an_interrupted_command_does_not_wait_for_its_time_limit(tmp_path: Path) -> None:
    code = (
        # A shell lets what it starts in the background ignore the signal, and all that it starts.
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from shuffledeploy.deploy.remote.bounded_command import run_bounded\n"
        "from shuffledeploy.deploy.remote.remote_host import Command\n"
        "words = ('sh', '-c', 'read x; echo > began; exec sleep 60')\n"
        "run_bounded(Command(words, os.environ), 60.0)"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    while program.poll() is None and not (tmp_path / "began").exists():
        time.sleep(0.02)
    program.send_signal(signal.SIGINT)
    try:
        _, said = program.communicate(timeout=30)
    finally:
        program.kill()
    assert b"KeyboardInterrupt" in said


def test_a_machine_without_ssh_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failure, match="no ssh on this machine's PATH"), open_device("ssh://board"):
        pass
