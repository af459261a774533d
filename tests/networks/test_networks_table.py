"""The table of networks counts outcomes by target, names failures and tells where time went."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from check_networks import main
from checked_program import CheckedProgram, check_program
from networks_table import networks_table

from shuffledeploy.model.errors import UsageError

ROWS = [
    CheckedProgram(
        "one", "host", "right", seconds={"traced": 1.0, "compiled": 4.0, "compared": 0.4},
        max_rel_error=4.2e-07, kernel_calls=12, shuffle_kernels=1,
    ),
    CheckedProgram("two", "host", "refused", "no code for roll", seconds={"traced": 2.0}),
    CheckedProgram("two", "cortex-a72", "crashed", "the process died"),
]  # fmt: skip


def test_the_table_counts_and_names() -> None:
    text = networks_table(ROWS)
    assert "| host | 2 | 1 (50 %) | 1 | 0 | 0 | 0 | 0 |" in text
    assert "| cortex-a72 | 1 | 0 (0 %) | 0 | 0 | 1 | 0 | 1 |" in text
    assert "- two, host: refused: no code for roll\n- two, cortex-a72: crashed" in text
    assert "| one | 4.2e-07 | 12 | 1 | not run |  |  |" in text
    assert "| host | 3 | 4 | 0 | one, 5 |" in text


def _refused() -> None:
    raise UsageError("TVM has no code for these operators of the program: roll")


def _never_done() -> None:
    time.sleep(60)


def _dies() -> None:
    os._exit(1)


def test_a_program_is_refused_not_done_or_dies() -> None:
    refused = check_program("net", _refused, "host", 100.0)
    assert refused.outcome == "refused"
    assert refused.detail.endswith("roll")
    slow = check_program("net", _never_done, "host", 0.5)
    assert (slow.outcome, slow.detail) == ("crashed", "not done after 0.5 s: not traced")
    dead = check_program("net", _dies, "host", 100.0)
    assert (dead.outcome, dead.detail) == ("crashed", "the process died")


def test_a_run_goes_on_from_the_rows_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, table = tmp_path / "rows.json", tmp_path / "networks.md"
    known = CheckedProgram(
        "alexnet", "host", "right", max_rel_error=1e-6, kernel_calls=9, shuffle_kernels=0
    )
    rows.write_text(json.dumps({"networks": [vars(known)]}))
    arguments = ["alexnet", "--json", str(rows), "--resume", "--table", str(table)]
    assert main(arguments) == 0
    assert "1 right" in capsys.readouterr().out
    assert "| alexnet | 1.0e-06 | 9 | 0 |" in table.read_text()
    rows.write_text("{}")
    assert main(arguments) == 2
    assert "holds no rows of networks" in capsys.readouterr().err
