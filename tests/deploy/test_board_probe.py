"""A board that is really there becomes a file for ``--board``; an emulated one does not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ssh_board import SshBoard, ssh_board

from shuffledeploy.compiler.cores import CORES
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.board.sysroot import ensure_root, guest_command
from shuffledeploy.deploy.device import main
from shuffledeploy.deploy.estimate.boards import Board, read_board
from shuffledeploy.deploy.estimate.caches import KIB, Cache
from shuffledeploy.deploy.phone.emulated_phone.phone_process import PhoneProcess
from shuffledeploy.deploy.runner.board_probe import build_probe, read_probe, write_board
from shuffledeploy.model.errors import Failure, UsageError

#: As a Raspberry Pi 4's kernel tells it.
ANSWER: dict[str, Any] = {
    "emulated": False, "core": 3, "part": "0xd08", "highest_khz": 1_800_000, "hz": 1.799e9,
    "block_kib": 32768, "copied_bytes_a_second": 2.4104e9,
    "levels": [
        {"holds_data": True, "level": 1, "kib": 32, "ways": 2},
        {"holds_data": False, "level": 1, "kib": 48, "ways": 3},
        {"holds_data": True, "level": 2, "kib": 1024, "ways": 16},
    ],
}  # fmt: skip


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshBoard]:
    try:
        with ssh_board(tmp_path) as board:
            monkeypatch.setenv("PATH", f"{board.client}:/usr/bin:/bin")
            yield board
    except Failure as error:
        pytest.skip(f"no ssh server: {error}")


@pytest.mark.smoke
def test_what_was_measured_is_a_board_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "pi.toml"
    write_board(read_probe(json.dumps(ANSWER), "ssh://pi"), "ssh://pi", path)
    assert read_board(path) == Board("pi", "cortex-a72", 1.8, 2410, Cache(1024 * KIB, 16))
    figures = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    # Each figure has its kind.
    assert all("  # told: " in line or "  # measured: " in line for line in figures)
    assert "# third level: /sys tells of none" in path.read_text()


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("kib", "ways", "said"),
    [
        (None, 16, "/sys does not tell its size and its ways"),
        (1024, None, "/sys does not tell its size and its ways"),
        (1024, 0, "/sys does not tell its size and its ways"),
        (491_520, 16, "491520 KiB of 16 ways (told: /sys), which no board may have"),
        (3072, 16, "3072 KiB of 16 ways (told: /sys), which no board may have"),
    ],
)
def test_a_level_that_is_not_told_is_left_out(
    kib: int | None, ways: int | None, said: str, tmp_path: Path
) -> None:
    told = [{"holds_data": True, "level": 2, "kib": kib, "ways": ways}]
    path = tmp_path / "pi.toml"
    write_board(read_probe(json.dumps(ANSWER | {"levels": told}), "adb"), "adb", path)
    assert f"# second level: {said}\n" in path.read_text()
    assert read_board(path).second is None


@pytest.mark.smoke
@pytest.mark.parametrize(
    "change",
    [
        {"hz": 1.8e12}, {"copied_bytes_a_second": 3}, {"core": -1}, {"part": '"; import os'},
        {"levels": [ANSWER["levels"][0]] * 17}, {"colour": "red"}, {"hz": None},
    ],
)  # fmt: skip
def test_what_no_board_says_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Failure) as caught:
        read_probe(json.dumps(ANSWER | change), "adb:7")
    assert "\n" not in str(caught.value)


@pytest.mark.smoke
def test_a_device_that_says_that_it_is_emulated_has_no_figures() -> None:
    with pytest.raises(UsageError, match="adb:7 is emulated"):
        read_probe(json.dumps({**ANSWER, "emulated": True}), "adb:7")


def test_this_machine_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    assert main(["measure", str(path)]) == 0
    assert path.read_text() in capsys.readouterr().out
    _require_figures(path)


def test_a_board_behind_ssh_is_measured(ssh: SshBoard, tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    assert main(["measure", str(path), "--device", "ssh://board", "--core", "little"]) == 0
    _require_figures(path)
    assert not any((ssh.home / ".cache/shuffledeploy/pushed").iterdir())


def _require_figures(path: Path) -> None:
    told = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    assert 0.3 < told["clock_ghz"] < 8
    assert 100 < told["memcpy_mb_s"] < 200_000


@pytest.mark.emulated
def test_the_probe_itself_sees_an_emulator_and_the_cores_caches(
    emulator: Emulator, tmp_path: Path
) -> None:
    core = CORES["cortex-a53"]
    build_probe("aarch64", tmp_path / "probe")
    done = subprocess.run(
        guest_command(emulator, core, [str(tmp_path / "probe"), "any"], root=ensure_root(core)),
        check=True, capture_output=True, text=True, env=emulator.environment(),
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["emulated"]
    assert told["part"] == "0xd03"
    assert [level["kib"] for level in told["levels"]] == [32, 32, 512]
    assert not {"hz", "copied_bytes_a_second"} & set(told)


@pytest.mark.emulated
def test_an_emulated_phone_is_refused(
    phone: PhoneProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in phone.client_settings().items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "phone.toml"
    assert main(["measure", str(path), "--device", phone.name]) == 2
    assert "is emulated and its times say nothing" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mine.toml", "--device", "emulated:cortex-a53"], "is emulated and its times"),
        (["mine.toml", "--device", "rpc://127.0.0.1:9"], "takes no programs"),
        (["mine.toml", "--device", "toaster"], "names no device"),
        (["mine.toml", "--core", "big"], "--core goes with adb and ssh"),
        (["mine.json"], "--board takes files that end in .toml"),
        (["/nowhere/mine.toml"], "no folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["measure", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
