"""Between schedules and records: keys of kernels, records of schedules, schedules of records."""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace
from tvm_ffi import structural_visit

from shuffledeploy.compiler import TVM_VERSION
from shuffledeploy.compiler.kernels.images import for_each_image, one_image
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.score import details_of

KEY_LENGTH = 20
# Of the committed records the largest has 3840: more would keep LLVM busy for hours.
MOST_UNROLLED = 1 << 14


def kernel_key(function: tirx.PrimFunc) -> str:
    """Hash of a kernel's unscheduled code; the same under another name and for each batch."""
    plain = one_image(function)
    plain = plain.without_attr("global_symbol") if _named(plain) else plain
    return hashlib.sha256(plain.script().encode()).hexdigest()[:KEY_LENGTH]


def _named(function: tirx.PrimFunc) -> bool:
    return bool(function.attrs) and "global_symbol" in function.attrs


def unrolled(function: tirx.PrimFunc) -> int:
    """Tell how many times a scheduled kernel's most written out statement stands in its code."""
    times, most = [1], 1

    def on_loop(loop: tirx.For, visitor: Any) -> None:
        nonlocal most
        written = loop.kind in (tirx.ForKind.UNROLLED, tirx.ForKind.VECTORIZED)
        times.append(times[-1] * (int(loop.extent) if written else 1))
        most = max(most, times[-1])
        visitor.default_visit(loop)
        times.pop()

    structural_visit(function.body, [(tirx.For, on_loop)])
    return most


def make_record(
    kernel: str, key: str, schedule: Schedule, score: float, unit: str, source: str, trials: int
) -> Record:
    """Write down what was tried, today."""
    details = dict(details_of(score))
    trace = schedule.trace.simplified(remove_postproc=True).as_json()
    plain = json.loads(json.dumps(trace, default=_plain))
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return Record(
        kernel, key, float(score), unit, source, TVM_VERSION, today, trials, plain, details
    )


def _plain(value: Any) -> Any:
    """TVM's containers and numbers as JSON has them."""
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "value"):
        return value.value
    if hasattr(value, "items"):
        return {str(k): v for k, v in value.items()}
    return list(value)


def apply_record(function: tirx.PrimFunc, record: Record) -> tirx.PrimFunc | None:
    """Schedule a kernel as a record says; ``None`` where the record does not fit it."""
    schedule = recorded_schedule(one_image(function), record)
    if schedule is None:
        return None
    return for_each_image(function, lambda _: schedule.mod["main"])


def recorded_schedule(function: tirx.PrimFunc, record: Record) -> Schedule | None:
    """Give the schedule that a record describes; ``None`` where the record does not fit."""
    schedule = Schedule(tvm.IRModule({"main": function}))
    try:
        Trace.apply_json_to_schedule(record.trace, schedule)
        assert unrolled(schedule.mod["main"]) <= MOST_UNROLLED
    except Exception:
        # A trace comes from a file: whatever it makes TVM throw, the answer is that it does not
        # fit.
        return None
    return schedule
