"""A target without records of its own uses those of the nearest core that they fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from compile.bundle import load_bundle
from compile.targets import find_target, is_related
from compile.tune import main as tune
from compile.tuning.records import Record, append, log_path, read_log
from compile.tuning.related_records import usable_records

TVM = "0.27.0.post1"


def _record(key: str, score: float) -> Record:
    return Record("conv", key, score, "ns", "measured: there", TVM, "2026-01-02", 8, [[], []])


@pytest.mark.smoke
def test_the_nearest_core_lends_what_is_missing(tmp_path: Path) -> None:
    append(log_path(tmp_path, "cortex-a53"), [_record("a", 1.0), _record("own", 1.0)])
    append(log_path(tmp_path, "cortex-a72"), [_record("a", 2.0), _record("b", 3.0)])
    append(log_path(tmp_path, "cortex-a76"), [_record("own", 4.0)])
    append(log_path(tmp_path, "host-skylake"), [_record("x86", 5.0)])
    records = usable_records(tmp_path, find_target("cortex-a76"))
    assert {key: (r.score, r.lender) for key, r in records.items()} == {
        "a": (2.0, "cortex-a72"), "b": (3.0, "cortex-a72"), "own": (4.0, ""),
    }  # fmt: skip


@pytest.mark.smoke
def test_vectors_and_architecture_decide_whose_records_fit() -> None:
    avx2 = find_target('{"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}')
    assert is_related("host-znver2", avx2) == 0
    assert is_related("host-skylake-avx512", avx2) is None
    assert is_related("cortex-a72", avx2) is None
    assert is_related("no-such-core", avx2) is None
    a55 = find_target("cortex-a55")
    assert is_related("cortex-a53", a55) == 1
    assert is_related("cortex-a72", a55) == 2
    assert is_related("host-haswell", a55) is None


def test_a_bundle_says_whose_records_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs, output = tmp_path / "logs", tmp_path / "bundle"
    arguments = ["--model", "shufflenet-fashion", "--logs", str(logs), "--output", str(output)]
    search = ["--trials", "1", "--score", "instructions", "--device", "emulated"]
    assert tune([*arguments, "--target", "cortex-a72", *search, "--no-check"]) == 0
    (lent,) = read_log(log_path(logs, "cortex-a72")).records
    capsys.readouterr()
    assert tune([*arguments, "--target", "cortex-a76", "--trials", "0", "--no-check"]) == 0
    assert "use what was found for cortex-a72" in capsys.readouterr().out
    entries = {entry.name: entry for entry in load_bundle(output).manifest.kernels}
    assert entries[lent.kernel].record
    # The score was another core's.
    assert entries[lent.kernel].score is None
    assert read_log(log_path(logs, "cortex-a76")).records == ()
