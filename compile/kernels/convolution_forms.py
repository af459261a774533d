"""Schedule forms of the convolution kernel: register tiles, and streaming for linear layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from compile.kernels.blocks import ACCUMULATE, OUTPUT, PAD
from compile.kernels.tiling import (
    MOST_PIXELS_IN_TILE,
    MOST_WRITTEN_OUT,
    Choose,
    Core,
    Form,
    block_names,
    divisors,
    extents_of,
    schedule_padding,
    tile_in_registers,
    vectorize_copy,
)

# Channels of a sum written out.
MOST_STEPS = 10
FLOAT_BYTES = 4
# Weights of a layer, in bytes, from which they are taken to come from memory.
STREAMED_FROM = 1 << 21
# Channels of the input that are loaded as one vector where a multiply-add can pick a lane
# (AArch64).
STAGED = 4


def convolution_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """List the forms of a convolution, the one with the fewest loads a multiply-add first."""
    probe = Schedule(tvm.IRModule({"main": function}))
    pixels, _, padded, *kernel, depth = extents_of(probe, probe.get_sblock(ACCUMULATE))
    outputs = extents_of(probe, probe.get_sblock(OUTPUT))[2]
    lanes = int(function.attrs["lanes"])
    vectors = padded // lanes
    run = int(function.attrs["run"])
    # A padded input has two writers (fill and copy), which TVM's cache_read refuses.
    padded_first = any(name.startswith(PAD) for name in block_names(probe))
    can_stage = core.lanes == STAGED and run > 0 and run % STAGED == 0 and not padded_first
    whole = outputs % lanes == 0
    shape = _ConvolutionShape(lanes, whole, depth, tuple(kernel), can_stage)
    widths = divisors(vectors, 16) if shape.whole else [vectors]
    # Where a window reaches over rows, a tile that stays in one row has constant addresses.
    columns = int(function.params[-1].shape[2])
    span = pixels if kernel == [1, 1] and int(function.params[0].shape[1]) != 1 else columns
    span = pixels if columns == 1 else span
    by_width: dict[int, list[tuple[float, int]]] = {}
    for n in widths:
        for m in divisors(span, MOST_PIXELS_IN_TILE):
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
    if pixels == 1:
        # Weights that fit no cache come from memory: in the order in which they lie there.
        streams = depth * padded * FLOAT_BYTES > STREAMED_FROM
        found.insert(0 if streams else len(found), _streaming_form(lanes, shape.steps))
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
        return [s for s in divisors(self.depth, MOST_STEPS) if s in (1, 2, 4, 8, self.depth)]


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
        tile_in_registers(schedule, first)
        *_, out_p, _, out_o = schedule.get_loops(output)
        if shape.whole:
            out_o, out_lane = schedule.split(out_o, [None, shape.lanes])
            schedule.vectorize(out_lane)
            schedule.unroll(out_o)
        else:
            schedule.vectorize(out_o)
        schedule.unroll(out_p)

    return apply


def _streaming_form(lanes: int, steps: list[int]) -> Form:
    """Read weights row by row, all sums of the layer standing in the first cache."""

    def apply(schedule: Schedule, choose: Choose) -> None:
        accumulate, output = schedule.get_sblock(ACCUMULATE), schedule.get_sblock(OUTPUT)
        p, q, o, kh, kw, k = schedule.get_loops(accumulate)
        o_out, o_lane = schedule.split(o, [None, lanes])
        k_out, k_in = schedule.split(k, [None, choose(steps, steps[-1])])
        schedule.reorder(p, q, kh, kw, k_out, o_out, k_in, o_lane)
        schedule.set_scope(accumulate, 0, "local")
        schedule.vectorize(o_lane)
        schedule.unroll(k_in)
        first = schedule.decompose_reduction(accumulate, kh)
        schedule.vectorize(schedule.get_loops(first)[-1])
        vectorize_copy(schedule, output, lanes)

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
