"""One command, all commands: names, help, mistakes; quickly, for nothing is compiled."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from shuffledeploy.command_line import COMMANDS, main

CPU = """
import contextlib, io, json, resource, sys
from shuffledeploy.command_line import main
out = io.StringIO()
with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in ("tvm", "torch", "matplotlib") if name in sys.modules]
print(json.dumps([out.getvalue(), used.ru_utime + used.ru_stime, heavy]))
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_teaches_without_tvm(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CPU, name, "--help"], check=True, capture_output=True, text=True
    )
    text, seconds, heavy = json.loads(done.stdout)
    assert text.startswith(f"usage: shuffledeploy {name} ")
    assert heavy == []
    # 0.3 s is asked for; a machine that is busy may take longer, one that imports TVM takes 4 s.
    assert seconds < 1.5


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["help"]):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert all(f"\n  {name} " in text for name in COMMANDS), text
        assert all(len(line) <= 80 for line in text.splitlines())


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tuen"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: there is no command 'tuen'")
    assert len(told.splitlines()) == 1
