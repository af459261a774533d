"""What the commands of `deploy` say of themselves."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from shuffledeploy.model import command_output as reports


@pytest.mark.smoke
def test_steps_are_told_of_in_a_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make zoo` said nothing for a quarter of an hour where there was no terminal."""
    console = Console(file=io.StringIO(), width=40)
    monkeypatch.setattr(reports, "CONSOLE", console)
    moments = iter([0.0, 1.0, 16.0, 17.0, 40.0, 41.0])
    monkeypatch.setattr(reports.time, "monotonic", lambda: next(moments))
    with reports.steps("starting", 4) as tell:
        for what in ("alexnet for host", None, "alexnet for a core with a long name", None, "last"):
            tell(what)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "1 of 4 in 16 s, about 48 s left; alexnet for host",
        "2 of 4 in 40 s, about 40 s left; alexnet for a core with a long name",
    ]


@pytest.mark.smoke
def test_shares_are_told_of_in_a_file_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench.py` and `validate_score.py` were silent in a file."""
    console = Console(file=io.StringIO(), width=60)
    monkeypatch.setattr(reports, "CONSOLE", console)
    now = 0.0
    monkeypatch.setattr(reports.time, "monotonic", lambda: now)
    with reports.shares("starting") as tell:
        for now, share in ((1.0, 0.1), (20.0, 0.25), (21.0, 0.3), (40.0, 0.5)):
            tell(f"part {share}", share)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "25% in 20 s, about 1 min 00 s left; part 0.25",
        "50% in 40 s, about 40 s left; part 0.5",
    ]
