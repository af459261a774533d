"""A target without records of its own uses those of the nearest core that they fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import tvm
from torch import nn
from tvm.s_tir import Schedule

from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.library_facts import kernel_entries
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.network import borrowed_targets, choose_schedules
from shuffledeploy.compiler.targets import find_target, places_apart
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.record_log import append, log_path
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record
from shuffledeploy.compiler.tuning.records.related_records import usable_records
from shuffledeploy.compiler.tuning.search.tasks import find_tasks
from shuffledeploy.model.errors import UsageError

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
def test_what_won_on_as_many_threads_goes_before_what_won_on_one(tmp_path: Path) -> None:
    core = "cortex-a76"
    append(log_path(tmp_path, core), [_record("both", 1.0), _record("one", 2.0)])
    append(log_path(tmp_path, core, 2), [_record("both", 3.0), _record("two", 4.0)])
    append(log_path(tmp_path, core, 4), [_record("four", 5.0)])
    target = find_target(core)

    def scores(threads: int) -> dict[str, tuple[float, str]]:
        found = usable_records(tmp_path, target.on_threads(threads))
        return {key: (record.score, record.lender) for key, record in found.items()}

    assert scores(1) == {"both": (1.0, ""), "one": (2.0, "")}
    assert scores(2) == {"both": (3.0, ""), "one": (2.0, ""), "two": (4.0, "")}
    assert scores(3) == scores(1)


@pytest.mark.smoke
def test_others_logs_are_read_only_for_what_is_missing(tmp_path: Path) -> None:
    append(log_path(tmp_path, "cortex-a76"), [_record("own", 4.0)])
    # A log that cannot be read.
    log_path(tmp_path, "cortex-a72").mkdir(parents=True)
    a76 = find_target("cortex-a76")
    assert set(usable_records(tmp_path, a76, ["own"])) == {"own"}
    with pytest.raises(UsageError, match="cannot read the tuning log"):
        usable_records(tmp_path, a76, ["own", "another"])


@pytest.mark.smoke
def test_vectors_and_architecture_decide_whose_records_fit() -> None:
    avx2 = find_target('{"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}')
    assert places_apart("host-znver2", avx2) == 0
    assert places_apart("host-skylake-avx512", avx2) is None
    assert places_apart("cortex-a72", avx2) is None
    assert places_apart("no-such-core", avx2) is None
    zen = find_target('{"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "znver4"}')
    assert places_apart("host-znver5", zen) == 0
    # The same vectors, shuffled by other units.
    assert places_apart("host-cascadelake", zen) == 1
    a55 = find_target("cortex-a55")
    assert places_apart("cortex-a53", a55) == 1
    # Tiles that suit the one do not suit a core that issues in order.
    assert places_apart("cortex-a72", a55) is None
    assert places_apart("cortex-a72", find_target("cortex-a76")) == 2
    assert places_apart("host-haswell", a55) is None


def test_a_bundle_says_that_a_record_was_applied_and_no_score(tmp_path: Path) -> None:
    exported = trace(nn.Conv2d(8, 12, 1).eval(), (1, 8, 3, 4))
    a72, a76 = find_target("cortex-a72"), find_target("cortex-a76")
    (task,) = find_tasks(lower(exported, a72), a72)
    schedule = Schedule(tvm.IRModule({"main": task.function}))
    forms(task.function, a72.core)[0](schedule, lambda options, default: default)
    record = make_record(task.name, task.key, schedule, 2.0, "ns", "measured: there", 1)
    append(log_path(tmp_path, "cortex-a72"), [record])
    lowered = lower(exported, a76)
    chosen = choose_schedules(lowered, a76, usable_records(tmp_path, a76))
    (entry,) = [e for e in kernel_entries(lowered, chosen) if e.name == task.name]
    # The score was another core's.
    assert (entry.record, entry.score) == (True, None)
    assert borrowed_targets(chosen) == ("cortex-a72",)
