"""What tests ask of kernels of one kind: their names, each of their forms, a record that fits."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.attributes import kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls
from shuffledeploy.compiler.tuning.records.plain_traces import require_plain
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record, recorded_schedule
from shuffledeploy.compiler.tuning.search.tasks import default_schedule


def called_of_kind(module: tvm.IRModule, kind: str) -> list[str]:
    """Name the kernels of a kind in the order in which one inference calls them."""
    functions = kernel_functions(module)
    return [name for _, name in kernel_calls(module) if kind_of(functions[name]) == kind]


def with_form(kind: str, number: int) -> Callable[[Any, Core], Any]:
    """Schedule kernels of a kind with the form of a number, its free numbers drawn."""
    generator = random.Random(number)

    def schedule(function: Any, core: Core) -> Any:
        if kind_of(function) != kind:
            return function
        state = Schedule(tvm.IRModule({"main": function}), debug_mask="all")
        forms(function, core)[number](state, lambda options, _: generator.choice(list(options)))
        return state.mod["main"]

    return schedule


def assert_a_record_fits(name: str, function: tirx.PrimFunc, core: Core) -> None:
    """Write down a kernel's default schedule: its trace is plain, and gives a schedule again."""
    record = make_record(name, "k", default_schedule(function, core), 1.0, "ns", "measured", 1)
    require_plain(record.trace)
    assert recorded_schedule(function, record) is not None
