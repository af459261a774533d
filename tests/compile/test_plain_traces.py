"""Traces from outside: those of our templates pass, whatever brings code of its own is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stages import HOST, imported, lowered
from torch import nn

from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.tuning.records.plain_traces import require_plain
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.record_log import log_path, read_log
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record, recorded_schedule
from shuffledeploy.compiler.tuning.request import LOG_FOLDER
from shuffledeploy.compiler.tuning.search.tasks import default_schedule

CODE = 'void touched() { system("touch marker"); }'


def _of(*instructions: list[Any], decisions: tuple[Any, ...] = ()) -> Any:
    return [list(instructions), list(decisions)]


ROOT = ["GetSBlock", [], ["root", "main"], ["b0"]]
DRAWN = ["SampleCategorical", [], [[1, 2], [0.5, 0.5]], ["v1"]]
MAP = {"nodes": [{"type": "int", "data": 8}]}

HOSTILE: dict[str, tuple[Any, str]] = {
    "C in an annotation": (
        _of(ROOT, ["Annotate", ["b0", f'"{CODE}"'], ["pragma_import_c"], []]), "pragma_import_c"),
    "LLVM in an annotation": (
        _of(ROOT, ["Annotate", ["b0", "v1"], ["pragma_import_llvm"], []]), "pragma_import_llvm"),
    "a text for an annotation's value": (
        _of(ROOT, ["Annotate", ["b0", f'"{CODE}"'], ["shared_vectors"], []]), "gives Annotate"),
    "an intrinsic by name": (
        _of(ROOT, ["Tensorize", ["b0"], ["any_intrin", True], []]), "Tensorize"),
    "threads": (_of(ROOT, ["Bind", ["l1"], ["threadIdx.x"], []]), "Bind"),
    "parallel loops": (_of(ROOT, ["Parallel", ["l1"], [], []]), "Parallel"),
    "a scope of another device": (
        _of(ROOT, ["SetScope", ["b0"], [0, "shared.dyn"], []]), "SetScope"),
    "a block of another function": (_of(["GetSBlock", [], ["root", "other"], ["b0"]]), "GetSBlock"),
    "a block of any name": (_of(["GetSBlock", [], ["x\x1b[2J", "main"], ["b0"]]), "x1b[2J"),
    "huge factors": (_of(ROOT, ["Split", ["l1", 10**9, 10**9], [True, False], ["l2"]]), "Split"),
    "no factor": (_of(ROOT, ["Split", ["l1", 0, 4], [True, False], ["l2", "l3"]]), "Split"),
    "huge options": (_of(["SampleCategorical", [], [[10**9], [1.0]], ["v1"]]), "Categorical"),
    "options that are none": (_of(["SampleCategorical", [], [[], []], ["v1"]]), "Categorical"),
    "truth for a number": (_of(["SampleCategorical", [], [[True], [1.0]], ["v1"]]), "Categorical"),
    "a decision beyond the options": (_of(DRAWN, decisions=([0, 7],)), "decides"),
    "a decision of nothing": (_of(DRAWN, decisions=([9, 0],)), "decides"),
    "any node in a map": (
        _of(ROOT, ["TransformLayout", ["b0", json.dumps(
            {"nodes": [{"type": "tirx.Call", "data": {"op": "system"}}]})], [0, 0, None, 0], []]),
        "layout"),
    "a map that refers to itself": (
        _of(ROOT, ["TransformLayout", ["b0", json.dumps(
            {"nodes": [{"type": "ffi.Array", "data": [0]}]})], [0, 0, None, 0], []]),
        "layout"),
    "padding by what a file says": (
        _of(ROOT, ["TransformLayout", ["b0", json.dumps(MAP)], [0, 0, "v1", 1], []]),
        "TransformLayout"),
    "too long": (_of(*[["Unroll", ["l1"], [], []]] * 300), "more than 200"),
    "no instruction": (_of(["Unroll", "l1", [], []]), "that is none"),
    "no trace": ([[1]], "is none"),
}  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_template_writes_is_refused(name: str, tmp_path: Path) -> None:
    trace, message = HOSTILE[name]
    with pytest.raises(ValueError, match="its trace") as refused:
        require_plain(trace)
    assert message in str(refused.value)
    assert str(refused.value).isprintable()
    log = tmp_path / "records.jsonl"
    log.write_text(
        Record("conv", "k", 1.0, "ns", "measured: x", "0.27.0.post1", "2026-01-02", 8, trace).line()
    )
    found = read_log(log)
    assert found.records == ()
    assert message in found.rejected[0]


@pytest.mark.smoke
@pytest.mark.parametrize("target", sorted(p.parent.name for p in LOG_FOLDER.glob("*/*.jsonl")))
def test_every_committed_record_is_plain(target: str) -> None:
    log = read_log(log_path(LOG_FOLDER, target))
    assert log.rejected == ()
    assert len(log.records) > 100


def test_a_schedule_that_writes_out_whole_layers_does_not_fit() -> None:
    """LLVM would be busy with its code for hours."""
    module = lowered(imported(nn.Conv2d(64, 64, 1), 1, 64, 28, 28).module)
    function = next(f for n, f in kernel_functions(module).items() if n.startswith("conv"))
    loops = [f"l{number}" for number in range(1, 7)]
    written_out = _of(
        ["GetSBlock", [], ["accumulate", "main"], ["b0"]],
        ["GetLoops", ["b0"], [], loops],
        *(["Unroll", [loop], [], []] for loop in loops),
    )
    require_plain(written_out)
    schedule = default_schedule(function, HOST.core)
    record = make_record("conv", "k", schedule, 1.0, "ns", "measured: here", 1)
    assert recorded_schedule(function, record) is not None
    assert recorded_schedule(function, Record(**{**vars(record), "trace": written_out})) is None
