"""Tuning records: what is damaged is named and skipped, what does not fit is refused."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import tvm
from stages import HOST, imported, lowered
from torch import nn
from tvm.s_tir import Schedule
from tvm_ffi import structural_equal

from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.tuning.records.record import ESTIMATED_UNIT, Record
from shuffledeploy.compiler.tuning.records.record_log import (
    SHORTLIST,
    append,
    best_few,
    compact,
    log_path,
    read_log,
    rewrite,
)
from shuffledeploy.compiler.tuning.records.recorded_schedules import (
    apply_record,
    kernel_key,
    make_record,
)
from shuffledeploy.model.errors import UsageError

TVM = "0.27.0.post1"


def _record(key: Any = "k", score: float = 2.0, **changes: Any) -> Record:
    plain = Record("conv", key, score, "ns", "measured: here", TVM, "2026-01-02", 8, [[], []])
    return dataclasses.replace(plain, **changes)


def _plain(number: int) -> Any:
    """Give a trace that a template could leave, another for each number."""
    return [[["Unroll", [f"l{number}"], [], []]], []]


def _kernel(channels: int = 8, outputs: int = 12) -> Any:
    """Return the kernel of one small convolution."""
    module = lowered(imported(nn.Conv2d(channels, outputs, 1), 1, channels, 3, 4).module)
    return next(f for name, f in kernel_functions(module).items() if name.startswith("conv"))


@pytest.mark.smoke
def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = log_path(tmp_path, "cortex-a72")
    assert read_log(path).records == ()
    append(path, [_record("a"), _record("b", 3.5)])
    append(path, [_record("c", kernel='quo"te [/x] \u00fc')])
    log = read_log(path)
    odd = _record("c", kernel='quo"te [/x] \u00fc')
    assert sorted(log.records, key=lambda r: r.key) == [_record("a"), _record("b", 3.5), odd]
    assert log.rejected == ()
    assert path == tmp_path / "cortex-a72" / "records.jsonl"


@pytest.mark.smoke
def test_of_estimates_too_close_to_tell_the_fewest_instructions_are_used(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    figures = {0: 50, 1: 40, 2: 41, 3: 42, 4: 43, 5: 30, 6: 10}
    scores = [100.0, 101.0, 101.5, 102.0, 103.0, 104.9, 105.1]
    for number, instructions in figures.items():
        append(path, [_record(
            score=scores[number], unit=ESTIMATED_UNIT, source="estimated: there",
            trace=_plain(number), details={"instructions": instructions},
        )])  # fmt: skip
    measured = _record("m", score=1.0), _record("m", score=1.01, trace=_plain(1))
    append(path, measured)
    for _ in range(2):
        log = read_log(path)
        assert log.best["k"].score == 100.0
        assert log.preferred["k"].score == 104.9  # 105.1 is no tie
        assert len(log.shortlist["k"]) == SHORTLIST
        assert log.preferred["m"] == measured[0]
        compact(path)
    assert [r.score for r in best_few(log.shortlist["k"], 2)] == [100.0, 104.9]


@pytest.mark.smoke
def test_the_best_of_each_source_counts_and_measured_before_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    counted = {"unit": "instructions", "source": "counted: there"}
    append(path, [
        _record("a", 5.0), _record("a", 4.0), _record("a", 6.0), _record("a", 4.0, trials=99),
        _record("a", 1.0, **counted), _record("b", 7.0, **counted),
    ])  # fmt: skip
    log = read_log(path)
    assert len(log.records) == 3
    # Of equal scores the later one, which knows of more trials.
    assert log.best["a"] == _record("a", 4.0, trials=99)
    assert log.best["b"].score == 7.0
    assert read_log(path, "counted: there").best["a"].score == 1.0
    assert read_log(path, "elsewhere").best == {}


BAD_LINES = [
    ("{", "not JSON"),
    (_record().line()[:-30], "not JSON"),
    ("[" * 100_000, "not JSON"),
    ("[1, 2]", "missing or unknown"),
    ("null", "missing or unknown"),
    (_record().line().replace('"trials"', '"trails"'), "missing or unknown"),
    (_record().line()[:-1] + ',"more":1}', "missing or unknown"),
    (_record(score=float("nan")).line(), "positive number"),
    (_record(score=-1.0).line(), "positive number"),
    (_record(score=0.0).line(), "positive number"),
    (_record(score=float("inf")).line(), "positive number"),
    (_record(score=True).line(), "positive number"),
    (_record().line().replace("2.0", '"fast"'), "positive number"),
    (_record(key=7).line(), "another type"),
    (_record(trace="x").line(), "another type"),
    (_record(trials="many").line(), "another type"),
    (_record(details={"instructions": "few"}).line(), "another type"),
    (_record(details={"instructions": None}).line(), "another type"),
    (_record(trials=-3).line(), "another type"),
    (_record(tvm="0.26.0").line(), "written with TVM 0.26.0"),
    (_record(source="\x1b[2J").line(), "another type"),
    (_record(kernel="two\nlines").line(), "another type"),
    (_record(unit="n" * 1000).line(), "another type"),
    (_record(trials=10**400).line(), "another type"),
    (_record(score=10**400).line(), "positive number"),
    (_record(details={"instructions": float("nan")}).line(), "another type"),
    (_record(date="[/x]").line(), "its date is none"),
    (_record(kernel="x" * 100_001).line(), "a line of more than"),
    ("\x00\xff binary", "not JSON"),
]


@pytest.mark.smoke
def test_a_bad_line_is_skipped_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [_record("first").line(), *(line for line, _ in BAD_LINES), "", _record("last").line()]
    path.write_bytes("\n".join(lines).encode("latin-1") + b"\n")
    log = read_log(path)
    assert set(log.best) == {"first", "last"}
    assert len(log.rejected) == len(BAD_LINES)
    for number, (sentence, (_, reason)) in enumerate(
        zip(log.rejected, BAD_LINES, strict=True), start=2
    ):
        assert sentence.startswith(f"{path}:{number}: ")
        assert reason in sentence


@pytest.mark.smoke
def test_what_follows_a_line_cut_short_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(_record("a").line() + "\n" + _record("b").line()[:40])
    append(path, [_record("c")])
    log = read_log(path)
    assert set(log.best) == {"a", "c"}
    assert len(log.rejected) == 1


@pytest.mark.smoke
def test_a_log_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the tuning log"):
        read_log(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write the tuning log"):
        append(tmp_path / "file" / "records.jsonl", [_record()])


@pytest.mark.smoke
def test_rewriting_keeps_the_old_log_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl"
    append(path, [_record("b"), _record("a")])
    before = path.read_bytes()

    class Broken(Record):
        def line(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrite(path, [_record("c"), Broken(**dataclasses.asdict(_record("d")))])
    assert path.read_bytes() == before
    # What an interrupted rewrite left is no part of the next.
    (tmp_path / "records.new").write_text("left\n")
    rewrite(path, [_record("z"), _record("c")])
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["c", "z"]
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]


@pytest.mark.smoke
def test_compacting_drops_what_was_beaten_but_nothing_that_is_not_understood(
    tmp_path: Path,
) -> None:
    path = tmp_path / "records.jsonl"
    compact(path)
    assert not path.exists()
    append(path, [_record("a", 3.0), _record("a", 2.0), _record("b")])
    compact(path)
    assert len(path.read_text().splitlines()) == 2
    append(path, [_record("a", 1.0), _record("c", tvm="0.28.0")])
    before = path.read_bytes()
    compact(path)
    assert path.read_bytes() == before


def _traced(function: Any, number: int, seed: int) -> Schedule:
    """Schedule with one form, its free numbers drawn and written into the trace."""
    rng = random.Random(seed)
    schedule = Schedule(tvm.IRModule({"main": function}), debug_mask="all")
    forms(function, HOST.core)[number](
        schedule,
        lambda options, default: schedule.sample_categorical(
            list(options), [1.0 / len(options)] * len(options), rng.randrange(len(options))
        ),
    )
    return schedule


def test_a_record_gives_back_the_schedule_it_was_made_of(tmp_path: Path) -> None:
    function = _kernel()
    for number in range(len(forms(function, HOST.core))):
        schedule = _traced(function, number, number)
        record = make_record("conv", kernel_key(function), schedule, 5.0, "ns", "here", 3)
        append(tmp_path / "log", [record])
        stored = read_log(tmp_path / "log").best[kernel_key(function)]
        assert stored == record
        applied = apply_record(function, stored)
        assert applied is not None
        assert structural_equal(applied, schedule.mod["main"])


def test_a_record_that_does_not_fit_is_refused() -> None:
    function, other = _kernel(), _kernel(8, 20)
    schedule = _traced(function, 0, 1)
    fitting = make_record("conv", kernel_key(function), schedule, 5.0, "ns", "here", 3)
    pool = lowered(imported(nn.Sequential(nn.Conv2d(4, 8, 1), nn.MaxPool2d(2)), 1, 4, 4, 4).module)
    window = next(f for n, f in kernel_functions(pool).items() if n.startswith("max_pool"))
    assert apply_record(window, fitting) is None
    traces: list[Any] = [
        [], [1, 2], [[["Nothing", [], [], []]], []], [fitting.trace[0], "x"], {"a": 1},
        [fitting.trace[0][:3] + fitting.trace[0][4:], fitting.trace[1]], [None, None],
        [[["GetSBlock", [], ["nothing", "main"], ["b0"]]], []],
    ]  # fmt: skip
    for trace in traces:
        assert apply_record(function, dataclasses.replace(fitting, trace=trace)) is None
    assert apply_record(function, fitting) is not None
    assert kernel_key(other) != fitting.key


@pytest.mark.smoke
def test_a_key_is_the_code_and_not_the_name() -> None:
    function = _kernel()
    assert kernel_key(function) == kernel_key(_kernel())
    assert kernel_key(function.with_attr("global_symbol", "elsewhere")) == kernel_key(function)
    assert kernel_key(_kernel(8, 20)) != kernel_key(function)
    assert kernel_key(_kernel(4, 12)) != kernel_key(function)
