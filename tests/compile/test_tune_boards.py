"""Boards of `compile/tune.py`: listed with their figures, refused where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from shuffledeploy.compiler.tune import main


def test_targets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-targets"]) == 0
    text = capsys.readouterr().out
    assert "Raspberry Pi 4" in text
    assert "neoverse-n1" in text
    tables, _, _ = text.partition("networks: ")
    assert max(map(len, tables.splitlines())) <= 80
    (row,) = (line for line in tables.splitlines() if "rk3588-big" in line and "76" in line)
    cells = [cell.strip() for cell in row.split("│")]
    assert cells[1:-1] == ["rk3588-big", "cortex-a76", "2.4", "64, 512, 3072", "10464"]
    # What stands in for a figure that nobody published is told.
    assert "│ oneplus-7t *" in text
    assert "* memcpy of oneplus-7t: that of rk3588-big" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--board", "raspberry-pi-44"], "did you mean raspberry-pi-4"),
        (["--board", "raspberry-pi-4", "--target", "cortex-a53"],
         "raspberry-pi-4 has a cortex-a72: leave out --target cortex-a53"),
        (["--board", "raspberry-pi-4", "--target", "host"], "leave out --target host"),
        (["--board", "raspberry-pi-3b+", "--target", "arm"], "leave out --target arm"),
        (["--board", "raspberry-pi-4", "--device", "emulated:cortex-a53"],
         "raspberry-pi-4 has a cortex-a72: name --device emulated:cortex-a72"),
        (["--board", "mine.toml"], "mine has a cortex-a77, which is no target"),
    ],
)  # fmt: skip
def test_a_board_that_cannot_be_is_refused_at_once(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text('core = "cortex-a77"\nclock_ghz = 2.8\nmemcpy_mb_s = 9000\n')
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]
