"""Schedules of the kernels: one form for each, its free numbers left to a search.

A form is written once. `Choose` hands it each free number, either the default for this shape or a random
variable that MetaSchedule samples, so that a kernel without a tuning record runs the same form with
sensible numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from compile.kernels.blocks import ACCUMULATE, OUTPUT, PAD
from compile.kernels.joined import PART

KIND = "kernel"
UNROLLED_STEPS = (1, 2, 4, 8)
MOST_PIXELS_IN_TILE = 28


@dataclasses.dataclass(frozen=True)
class Core:
    """What a schedule has to know of a core.

    Attributes
    ----------
    lanes : int
        Floats in a vector register.
    registers : int
        Vector registers.
    """

    lanes: int
    registers: int


class Choose(Protocol):
    """Gives a free number of a schedule."""

    def __call__(self, options: Sequence[int], default: int) -> Any:
        """Return one of `options`, or a random variable over them."""


Form = Callable[[Schedule, Choose], None]


def forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """Return the schedule forms for a kernel, best guess first; empty for kinds with no form."""
    kind = str(function.attrs[KIND]) if function.attrs and KIND in function.attrs else ""
    if kind == "convolution":
        return _convolution_forms(function, core)
    if kind == "window":
        return _window_forms(function, core)
    if kind == "joined":
        return [_joined_form(core)]
    return []


def scheduled(function: tirx.PrimFunc, core: Core) -> tirx.PrimFunc:
    """Schedule a kernel with default numbers, or as generic code where no form covers it."""
    schedule = Schedule(tvm.IRModule({"main": function}))
    candidates = forms(function, core) or [_generic_form(core)]
    candidates[0](schedule, lambda options, default: default)
    return schedule.mod["main"]


def _divisors(number: int, most: int) -> list[int]:
    return [d for d in range(1, min(number, most) + 1) if number % d == 0]


def _extents(schedule: Schedule, block: Any) -> list[int]:
    return [int(schedule.get(loop).extent) for loop in schedule.get_loops(block)]


def _convolution_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    probe = Schedule(tvm.IRModule({"main": function}))
    pixels, _, padded, *_ = _extents(probe, probe.get_sblock(ACCUMULATE))
    outputs = _extents(probe, probe.get_sblock(OUTPUT))[2]
    lanes = _weight_lanes(function)
    vectors = padded // lanes
    whole = outputs % lanes == 0
    tiles = [
        (cost, m, n)
        for n in (_divisors(vectors, 16) if whole else [vectors])
        for m in _divisors(pixels, MOST_PIXELS_IN_TILE)
        if (cost := _tile_cost(m, n, core)) is not None
    ] or [(0.0, 1, min(_divisors(vectors, 16) if whole else [vectors]))]
    by_width: dict[int, list[tuple[float, int]]] = {}
    for cost, m, n in tiles:
        by_width.setdefault(n, []).append((cost, m))
    ranked = sorted((min(options), n) for n, options in by_width.items())
    found: list[Form] = []
    for (_, default_m), n in ranked[:4]:
        options = [m for _, m in sorted(by_width[n])[:6]]
        for groups_outside in (True, False):
            found.append(_convolution_form(n, options, default_m, lanes, whole, groups_outside))
    return found


def _tile_cost(pixels: int, vectors: int, core: Core) -> float | None:
    """Loads for each multiply-add of a register tile; ``None`` where it does not fit."""
    if pixels * vectors + vectors + 1 > core.registers:
        return None
    few = pixels * vectors < 8  # too few chains of additions to hide their latency
    return (pixels + vectors) / (pixels * vectors) + (1.0 if few else 0.0)


def _weight_lanes(function: tirx.PrimFunc) -> int:
    return int(function.attrs["lanes"])


def _convolution_form(
    vectors: int, tile_options: list[int], tile: int, lanes: int, whole: bool, groups_outside: bool
) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        accumulate, output = schedule.get_sblock(ACCUMULATE), schedule.get_sblock(OUTPUT)
        schedule_padding(schedule, lanes)
        depth = _extents(schedule, accumulate)[5]
        p, q, o, kh, kw, k = schedule.get_loops(accumulate)
        p_out, p_in = schedule.split(p, [None, choose(tile_options, tile)])
        o_out, o_in, o_lane = schedule.split(o, [None, vectors, lanes])
        steps = [step for step in UNROLLED_STEPS if depth % step == 0]
        k_out, k_in = schedule.split(k, [None, choose(steps, steps[-1] if depth <= 8 else 1)])
        outer = [q, o_out, p_out] if groups_outside else [p_out, q, o_out]
        schedule.reorder(*outer, kh, kw, k_out, k_in, p_in, o_in, o_lane)
        # Unit loops are kept so that a trace finds the same loops whatever its numbers are.
        schedule.reverse_compute_at(output, outer[-1], preserve_unit_loops=True)
        schedule.set_scope(accumulate, 0, "local")
        schedule.vectorize(o_lane)
        for loop in (o_in, p_in, k_in):
            schedule.unroll(loop)
        first = schedule.decompose_reduction(accumulate, kh)
        *_, first_p, first_o, first_lane = schedule.get_loops(first)
        schedule.vectorize(first_lane)
        schedule.unroll(first_o)
        schedule.unroll(first_p)
        *_, out_p, _, out_o = schedule.get_loops(output)
        if whole:
            out_o, out_lane = schedule.split(out_o, [None, lanes])
            schedule.vectorize(out_lane)
            schedule.unroll(out_o)
        else:
            schedule.vectorize(out_o)
        schedule.unroll(out_p)

    return apply


def schedule_padding(schedule: Schedule, lanes: int) -> None:
    """Split a padding block, where there is one, into a fill and a copy of the inside."""
    blocks = [b for b in schedule.get_child_blocks(schedule.get_sblock("root"))
              if schedule.get(b).name_hint == PAD]  # fmt: skip
    for block in blocks:
        fill = schedule.decompose_padding(block, schedule.get_loops(block)[0])
        for part in (fill, block):
            vectorize_last(schedule, part, lanes)


def vectorize_last(schedule: Schedule, block: Any, lanes: int) -> None:
    """Vectorize the innermost loop of a copy, by whole vectors where they fit."""
    loop = schedule.get_loops(block)[-1]
    extent = int(schedule.get(loop).extent)
    if extent % lanes == 0:
        loop = schedule.split(loop, [None, lanes])[1]
    elif extent > 64:
        widest = max(d for d in _divisors(extent, 64))
        loop = schedule.split(loop, [None, widest])[1]
    schedule.vectorize(loop)


def _window_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    probe = Schedule(tvm.IRModule({"main": function}))
    pixels, channels, kh, kw = _extents(probe, probe.get_sblock(ACCUMULATE))
    whole = channels % core.lanes == 0
    width = core.lanes if whole else max(_divisors(channels, 4 * core.lanes))
    blocks = _divisors(channels // width, 4)
    vectors = -(-width // core.lanes)
    budget = max(1, core.registers // 2)
    tiles = [m for m in _divisors(pixels, MOST_PIXELS_IN_TILE) if m * vectors <= budget] or [1]
    return [
        _window_form(n, width, tiles, kh * kw <= 25, pixels_outside)
        for n in reversed([n for n in blocks if n * vectors <= budget] or [1])
        for pixels_outside in (True, False)
    ]


def _window_form(
    blocks: int, width: int, tiles: list[int], unrolled: bool, pixels_outside: bool
) -> Form:
    fitting = [m for m in tiles if m * blocks <= max(tiles)] or [1]

    def apply(schedule: Schedule, choose: Choose) -> None:
        accumulate, output = schedule.get_sblock(ACCUMULATE), schedule.get_sblock(OUTPUT)
        schedule_padding(schedule, width)
        p, c, kh, kw = schedule.get_loops(accumulate)
        p_out, p_in = schedule.split(p, [None, choose(fitting, fitting[-1])])
        c_out, c_in, c_lane = schedule.split(c, [None, blocks, width])
        outer = [p_out, c_out] if pixels_outside else [c_out, p_out]
        schedule.reorder(*outer, kh, kw, p_in, c_in, c_lane)
        schedule.reverse_compute_at(output, outer[-1], preserve_unit_loops=True)
        schedule.set_scope(accumulate, 0, "local")
        schedule.vectorize(c_lane)
        for loop in (c_in, p_in, *((kw, kh) if unrolled else ())):
            schedule.unroll(loop)
        first = schedule.decompose_reduction(accumulate, kh)
        *_, first_p, first_c, first_lane = schedule.get_loops(first)
        schedule.vectorize(first_lane)
        schedule.unroll(first_c)
        schedule.unroll(first_p)
        *_, out_p, out_c = schedule.get_loops(output)
        out_c, out_lane = schedule.split(out_c, [None, width])
        schedule.vectorize(out_lane)
        schedule.unroll(out_c)
        schedule.unroll(out_p)

    return apply


def _joined_form(core: Core) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            if schedule.get(block).name_hint.startswith(PART):
                vectorize_last(schedule, block, core.lanes)

    return apply


def _generic_form(core: Core) -> Form:
    """Inline what can be inlined and vectorize what is left: for kernels without a form of their own."""

    def apply(schedule: Schedule, choose: Choose) -> None:
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
                lane = max(_divisors(extent, core.lanes))
                schedule.vectorize(schedule.split(fused, [None, lane])[1])

    return apply
