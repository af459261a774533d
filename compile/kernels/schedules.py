"""Schedules of the kernels: one form for each, its free numbers left to a search.

A form is written once. `Choose` hands it each free number, either the default for this shape or a
random variable that MetaSchedule samples, so that a kernel without a tuning record runs the same
form with sensible numbers.
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
MOST_PIXELS_IN_TILE = 28
# Longest sum over a window that is written out; channels of a sum written out; vectors in one step
# of a copy.
MOST_WRITTEN_OUT = 25
MOST_STEPS = 10
VECTORS_IN_COPY = 8
# Channels of the input that are loaded as one vector where a multiply-add can pick a lane
# (AArch64).
STAGED = 4


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
    pixels, _, padded, *kernel, depth = _extents(probe, probe.get_sblock(ACCUMULATE))
    outputs = _extents(probe, probe.get_sblock(OUTPUT))[2]
    lanes = int(function.attrs["lanes"])
    vectors = padded // lanes
    run = int(function.attrs["run"])
    # A padded input has two writers (fill and copy), which TVM's cache_read refuses.
    padded_first = any(name.startswith(PAD) for name in _block_names(probe))
    can_stage = core.lanes == STAGED and run > 0 and run % STAGED == 0 and not padded_first
    whole = outputs % lanes == 0
    shape = _ConvolutionShape(lanes, whole, depth, tuple(kernel), can_stage)
    widths = _divisors(vectors, 16) if shape.whole else [vectors]
    # Where a window reaches over rows, a tile that stays in one row has constant addresses.
    columns = int(function.params[-1].shape[2])
    span = pixels if kernel == [1, 1] and int(function.params[0].shape[1]) != 1 else columns
    span = pixels if columns == 1 else span
    by_width: dict[int, list[tuple[float, int]]] = {}
    for n in widths:
        for m in _divisors(span, MOST_PIXELS_IN_TILE):
            cost = _tile_cost(m, n, core)
            if cost is not None:
                by_width.setdefault(n, []).append((cost, m))
    ranked = sorted((min(options), n) for n, options in by_width.items()) or [
        ((0.0, 1), min(widths))
    ]
    found: list[Form] = []
    for (_, default_m), n in ranked[:4]:
        tiles = [m for _, m in sorted(by_width.get(n, [(0.0, 1)]))[:6]]
        for groups_outside in (True, False):
            found.append(_convolution_form(shape, n, tiles, default_m, groups_outside, False))
        # The staged piece of the input has a fixed shape only where a tile stays in one row.
        staged = [m for m in tiles if columns % m == 0 and n * m + m + n <= core.registers]
        if shape.can_stage and staged:
            found.append(_convolution_form(shape, n, staged, staged[0], True, True))
    return found


@dataclasses.dataclass(frozen=True)
class _ConvolutionShape:
    """Lanes of the weights, whether they divide the outputs, extents of the sum, staging."""

    lanes: int
    whole: bool
    depth: int
    kernel: tuple[int, ...]
    can_stage: bool

    @property
    def unrolled_columns(self) -> bool:
        """Whether the window's columns are few enough to write out."""
        return self.kernel[1] > 1 and self.kernel[1] * self.depth <= MOST_WRITTEN_OUT

    @property
    def steps(self) -> list[int]:
        """Options for how many channels of the sum are written out."""
        return [s for s in _divisors(self.depth, MOST_STEPS) if s in (1, 2, 4, 8, self.depth)]


def _tile_cost(pixels: int, vectors: int, core: Core) -> float | None:
    """Count loads for each multiply-add of a register tile; ``None`` where it does not fit."""
    if pixels * vectors + vectors + 1 > core.registers:
        return None
    few = pixels * vectors < 8  # too few chains of additions to hide their latency
    return (pixels + vectors) / (pixels * vectors) + (1.0 if few else 0.0)


def _convolution_form(
    shape: _ConvolutionShape,
    vectors: int,
    tiles: list[int],
    tile: int,
    groups_outside: bool,
    staged: bool,
) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        accumulate, output = schedule.get_sblock(ACCUMULATE), schedule.get_sblock(OUTPUT)
        schedule_padding(schedule, shape.lanes)
        p, q, o, kh, kw, k = schedule.get_loops(accumulate)
        p_out, p_in = schedule.split(p, [None, choose(tiles, tile)])
        o_out, o_in, o_lane = schedule.split(o, [None, vectors, shape.lanes])
        fitting = [step for step in shape.steps if step <= 4] or [1]
        step = STAGED if staged else choose(shape.steps, fitting[-1])
        k_out, k_in = schedule.split(k, [None, step])
        outer = [q, o_out, p_out] if groups_outside else [p_out, q, o_out]
        schedule.reorder(*outer, kh, kw, k_out, k_in, p_in, o_in, o_lane)
        # Unit loops are kept so that a trace finds the same loops whatever its numbers are.
        schedule.reverse_compute_at(output, outer[-1], preserve_unit_loops=True)
        schedule.set_scope(accumulate, 0, "local")
        if staged:
            _stage_input(schedule, accumulate, k_out)
        schedule.vectorize(o_lane)
        for loop in (o_in, p_in, k_in, *((k_out, kw) if shape.unrolled_columns else ())):
            schedule.unroll(loop)
        first = schedule.decompose_reduction(accumulate, kh)
        _tile_in_registers(schedule, first)
        *_, out_p, _, out_o = schedule.get_loops(output)
        if shape.whole:
            out_o, out_lane = schedule.split(out_o, [None, shape.lanes])
            schedule.vectorize(out_lane)
            schedule.unroll(out_o)
        else:
            schedule.vectorize(out_o)
        schedule.unroll(out_p)

    return apply


def _stage_input(schedule: Schedule, accumulate: Any, loop: Any) -> None:
    """Load the tile's input channels as vectors, of which multiply-adds then pick lanes."""
    reads = schedule.get(accumulate).reads
    index = next(i for i, region in enumerate(reads) if len(region.source.shape) == 4)
    staged = schedule.cache_read(accumulate, index, "local")
    schedule.compute_at(staged, loop, preserve_unit_loops=True)
    *_, row, column, channel = schedule.get_loops(staged)
    schedule.vectorize(channel)
    schedule.unroll(column)
    schedule.unroll(row)


def _tile_in_registers(schedule: Schedule, block: Any) -> None:
    """Vectorize the innermost of the last three loops of a block and write out the other two."""
    *_, pixels, vectors, lane = schedule.get_loops(block)
    schedule.vectorize(lane)
    schedule.unroll(vectors)
    schedule.unroll(pixels)


def _block_names(schedule: Schedule) -> list[str]:
    root = schedule.get_sblock("root")
    return [str(schedule.get(block).name_hint) for block in schedule.get_child_blocks(root)]


def schedule_padding(schedule: Schedule, lanes: int) -> None:
    """Vectorize the blocks that pad an input, where there are any."""
    for name in _block_names(schedule):
        if name.startswith(PAD):
            vectorize_copy(schedule, schedule.get_sblock(name), lanes)


def vectorize_copy(schedule: Schedule, block: Any, lanes: int) -> None:
    """Copy in long vectors, which LLVM cuts into the target's own and pairs.

    Columns and channels that stand together in memory are joined first.
    """
    *outer, loop = schedule.get_loops(block)
    # Two at most: of three, TVM's simplifier no longer sees that the elements are neighbours.
    innermost = int(schedule.get(block).writes[0].source.shape[-1])
    if len(outer) > 1 and int(schedule.get(loop).extent) == innermost:
        loop = schedule.fuse(outer[-1], loop)
    extent = int(schedule.get(loop).extent)
    whole = [d for d in _divisors(extent, VECTORS_IN_COPY * lanes) if d % lanes == 0]
    longest = max(whole or _divisors(extent, VECTORS_IN_COPY * lanes))
    schedule.vectorize(schedule.split(loop, [None, longest])[1])


def _window_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    probe = Schedule(tvm.IRModule({"main": function}))
    _, channels, kh, kw = _extents(probe, probe.get_sblock(ACCUMULATE))
    # Tiles stay in one row, so that neighbouring windows share what they load.
    tiles = _divisors(int(function.params[-1].shape[2]), MOST_PIXELS_IN_TILE)
    found = []
    for width in _divisors(channels, 4 * core.lanes):
        vectors = -(-width // core.lanes)
        if width % core.lanes and channels % core.lanes == 0:
            continue
        fitting = [m for m in tiles if m * vectors <= core.registers * 3 // 4]
        if not fitting:
            continue
        most = fitting[-1]
        cost = vectors * (2 + 2 / most) / width
        found += [
            (cost, _window_form(width, fitting, most, kh * kw, outside))
            for outside in (True, False)
        ]
    return [form for _, form in sorted(found, key=lambda pair: pair[0])][:8]


def _window_form(width: int, tiles: list[int], tile: int, taps: int, pixels_outside: bool) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        accumulate, output = schedule.get_sblock(ACCUMULATE), schedule.get_sblock(OUTPUT)
        schedule_padding(schedule, width)
        p, c, kh, kw = schedule.get_loops(accumulate)
        p_out, p_in = schedule.split(p, [None, choose(tiles, tile)])
        c_out, c_in, c_lane = schedule.split(c, [None, 1, width])
        outer = [p_out, c_out] if pixels_outside else [c_out, p_out]
        schedule.reorder(*outer, kh, kw, p_in, c_in, c_lane)
        schedule.reverse_compute_at(output, outer[-1], preserve_unit_loops=True)
        schedule.set_scope(accumulate, 0, "local")
        schedule.vectorize(c_lane)
        for loop in (c_in, p_in, *((kw, kh) if taps <= MOST_WRITTEN_OUT else ())):
            schedule.unroll(loop)
        first = schedule.decompose_reduction(accumulate, kh)
        _tile_in_registers(schedule, first)
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
                vectorize_copy(schedule, block, core.lanes)

    return apply


def _generic_form(core: Core) -> Form:
    """Inline and vectorize what can be: for kernels without a form of their own."""

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
