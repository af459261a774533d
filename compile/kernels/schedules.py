"""Schedules of the kernels: one form for each, its free numbers left to a search.

A form is written once. `Choose` hands it each free number, either the default for this shape or a
random variable that MetaSchedule samples, so that a kernel without a tuning record runs the same
form with sensible numbers.
"""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.attributes import (
    ATTENTION,
    CONVOLUTION,
    ELEMENTWISE,
    JOINED,
    NORM,
    PRODUCT,
    SOFTMAX,
    WINDOW,
    attribute,
    kind_of,
)
from shuffledeploy.compiler.ir.inspection import element_of
from shuffledeploy.compiler.kernels.attention_forms import attention_forms
from shuffledeploy.compiler.kernels.batched_product import product_forms
from shuffledeploy.compiler.kernels.block_sum_forms import block_sum_forms
from shuffledeploy.compiler.kernels.concatenation import PART
from shuffledeploy.compiler.kernels.convolution_forms import convolution_forms
from shuffledeploy.compiler.kernels.elementwise import elementwise_form
from shuffledeploy.compiler.kernels.images import for_each_image
from shuffledeploy.compiler.kernels.rows_form import rows_form
from shuffledeploy.compiler.kernels.tiling import Choose, Core, Form, divisors, vectorize_copy
from shuffledeploy.compiler.kernels.window_forms import window_forms


def forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """Return the schedule forms for a kernel, best guess first; empty for kinds with no form."""
    kind, core = kind_of(function), _core_for(function, core)
    if kind == CONVOLUTION and attribute(function, "block"):
        return block_sum_forms(function, core)
    if kind == CONVOLUTION:
        return convolution_forms(function, core)
    several = {
        WINDOW: window_forms, ATTENTION: attention_forms, PRODUCT: product_forms,
    }.get(kind)  # fmt: skip
    if several is not None:
        return several(function, core)
    single = {
        JOINED: _joined_form,
        ELEMENTWISE: elementwise_form,
        NORM: rows_form,
        SOFTMAX: rows_form,
    }.get(kind)
    return [] if single is None else [single(core)]


def scheduled(function: tirx.PrimFunc, core: Core) -> tirx.PrimFunc:
    """Schedule a kernel with default numbers, or as generic code where no form covers it."""

    def apply(function: tirx.PrimFunc) -> tirx.PrimFunc:
        schedule = Schedule(tvm.IRModule({"main": function}))
        candidates = forms(function, core) or [_generic_form(_core_for(function, core))]
        candidates[0](schedule, lambda options, default: default)
        return schedule.mod["main"]

    return for_each_image(function, apply)


def _core_for(function: tirx.PrimFunc, core: Core) -> Core:
    """Give a core as it is for the elements that a kernel writes."""
    return core.of(element_of(function))


def _joined_form(core: Core) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            if schedule.get(block).name_hint.startswith(PART):
                vectorize_copy(schedule, block, core.lanes)

    return apply


def _generic_form(core: Core) -> Form:
    """Inline and vectorize what can be: for kernels without a form of their own."""

    def apply(schedule: Schedule, choose: Choose) -> None:
        body = schedule.mod["main"].body
        if not isinstance(body, s_tir.SBlockRealize) or body.block.name_hint != "root":
            # Loops in their order: a kernel of `sequential`, or TVM's own of scattered writes.
            return
        root = schedule.get_sblock("root")
        for block in schedule.get_child_blocks(root):
            try:
                schedule.compute_inline(block)
            except tvm.s_tir.ScheduleError:
                continue
        for block in schedule.get_child_blocks(root):
            loops = schedule.get_loops(block)
            kinds = [int(v.iter_type) for v in schedule.get(block).iter_vars]
            if loops and set(kinds) == {tirx.IterVar.DataPar}:
                fused = schedule.fuse(*loops)
                extent = int(schedule.get(fused).extent)
                lane = max(divisors(extent, core.lanes))
                schedule.vectorize(schedule.split(fused, [None, lane])[1])

    return apply
