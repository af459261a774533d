"""Schedule forms of the convolution kernel: register tiles; a linear layer may stream, too."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.attributes import SHARED, WORDS, attribute
from shuffledeploy.compiler.ir.memory_layout import ELEMENT_BYTES
from shuffledeploy.compiler.kernels.blocks import (
    ACCUMULATE,
    FINISHED,
    OUTPUT,
    POSITIONS,
    TAKEN,
)
from shuffledeploy.compiler.kernels.convolution_reads import (
    loop_orders,
    picks_lanes,
    rows_of_a_pixel,
    staged_channels,
    stride_of_rows,
)
from shuffledeploy.compiler.kernels.int8_products import PAIRS_OF_WORD
from shuffledeploy.compiler.kernels.packing import block_weight
from shuffledeploy.compiler.kernels.register_tiles import (
    LONG_SUM,
    SharedVectors,
    row_tile_costs,
    tile_costs,
)
from shuffledeploy.compiler.kernels.streaming_form import streaming_form
from shuffledeploy.compiler.kernels.tiling import (
    MOST_WRITTEN_OUT,
    QUARTER,
    Choose,
    Core,
    Form,
    divisors,
    extents_of,
    tile_in_registers,
)

# Registers of AArch64 and AVX-512; other x86 cores have half of them.
MANY_REGISTERS = 32
# Channels of a sum written out.
MOST_STEPS = 10
# Weights of a layer, in bytes, from which they are taken to come from memory.
STREAMED_FROM = 1 << 21
MOST_FORMS = 10
# Vectors of inputs whose products are written out together.
STAGED_TOGETHER = (1, 2)


def convolution_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """List the forms of a convolution, the one with the fewest loads a multiply-add first."""
    probe = Schedule(tvm.IRModule({"main": function}))
    pixels, _, padded, *kernel, depth = extents_of(probe, probe.get_sblock(ACCUMULATE))
    outputs = extents_of(probe, probe.get_sblock(OUTPUT))[2]
    lanes = int(function.attrs["lanes"])
    vectors = padded // lanes
    run = int(function.attrs["run"])
    loaded = staged_channels(run, core)
    scattered = any(buffer.name == POSITIONS for buffer in function.params)
    rest = outputs % lanes
    loads_fours = tuple(kernel) == (1, 1) and run >= QUARTER
    can_share = lanes == core.lanes and rest in core.shared_rests and (loads_fours or core.blends)
    # Of a quarter of a vector it saves most multiply-adds, on any core.
    shares = (rest <= QUARTER or core.shuffles_beside) if can_share else None
    one_by_one = run % QUARTER > 0 and attribute(function, WORDS) is None
    neighbours = one_by_one and picks_lanes(core)
    shape = _ConvolutionShape(
        lanes, vectors, rest == 0, scattered, depth, tuple(kernel),
        core.registers < MANY_REGISTERS, shares, neighbours,
    )  # fmt: skip
    # Outputs beside whole vectors belong to the one tile that has them all.
    widths = divisors(vectors, 16) if shape.whole else [vectors]
    # A tile that stays in one row has constant addresses; where rows follow each other in memory
    # and no window reaches over them, all pixels are one row.
    columns, one_row = int(function.attrs["columns"]), bool(function.attrs["one_row"])
    in_one_row = one_row or columns == 1
    span = pixels if in_one_row else columns
    rows = [(0.0, _Row.STEPS), *([(1.0, _Row.WRITTEN_OUT)] if shape.short_rows else [])]
    orders = loop_orders(function, core)
    streamed = rows_of_a_pixel(function) if core.multiplies_by_lane and one_row else 0
    if core.in_order and depth >= LONG_SUM:
        # The input's rows are in the first level for all blocks of outputs but the first.
        streamed = max(0, streamed - 1)
    in_pairs = attribute(function, WORDS) == PAIRS_OF_WORD
    found: list[tuple[float, Form]] = []
    for n in widths:
        for staged in (0, *loaded):
            # For a core that multiplies by lanes LLVM loads pixels that are not staged ahead, as
            # many as it can: odd tiles that reach for the last registers it spills.
            fills = not in_one_row or (core.multiplies_by_lane and not staged)
            sharing = SharedVectors(rest, loads_fours, core) if can_share else None
            costs = tile_costs(
                span, fills, n, core, staged, sharing, streamed, in_pairs=in_pairs, depth=depth
            )
            tiles = sorted(costs, key=lambda m: costs[m])[:6]
            found += [
                (costs[tiles[0]] + cost, _convolution_form(shape, n, tiles, order, staged, row))
                for cost, row in rows
                for order in orders
                if tiles
            ]
        if (stride := stride_of_rows(function, core)) and shape.whole:
            costs = row_tile_costs(columns, n, core, kernel[1], stride)
            tiles = sorted(costs, key=lambda m: costs[m])[:6]
            found += [
                (costs[tiles[0]] - 1, _convolution_form(shape, n, tiles, order, 0, _Row.NEIGHBOURS))
                for order in orders
                if tiles
            ]
    # Where no tile fits, the sums of one pixel go through memory.
    found = found or [(0.0, _convolution_form(shape, min(widths), [1], "qop", 0, _Row.STEPS))]
    forms = [form for _, form in sorted(found, key=lambda pair: pair[0])][:MOST_FORMS]
    if pixels == 1:
        # Weights that fit no cache come from memory: in the order in which they lie there.
        streams = depth * padded * ELEMENT_BYTES[core.element] > STREAMED_FROM
        forms.insert(0 if streams else len(forms), streaming_form(lanes, shape.steps))
    return forms


class _Row(enum.Enum):
    """What becomes of a row of the window."""

    #: A step of a loop each column.
    STEPS = enum.auto()
    #: Written out, pixel by pixel.
    WRITTEN_OUT = enum.auto()
    #: Written out, all pixels of the tile with a column; columns stand beside each other in memory.
    NEIGHBOURS = enum.auto()


@dataclasses.dataclass(frozen=True)
class _ConvolutionShape:
    """Lanes and vectors of a group's outputs, whether they fill them and go apart, and the sum.

    `few_registers` tells whether LLVM spills where more than one channel of a window is written
    out. `shares` tells whether by default pixels share vectors for outputs beside whole ones; None
    where they cannot. `neighbours` tells whether channels that are written out together are loaded
    as vectors (`load_neighbours`).
    """

    lanes: int
    vectors: int
    whole: bool
    scattered: bool
    depth: int
    kernel: tuple[int, ...]
    few_registers: bool
    shares: bool | None
    neighbours: bool

    @property
    def short_rows(self) -> bool:
        """Whether a row of the window is short enough to write out."""
        return self.kernel[1] > 1 and self.kernel[1] * self.depth <= MOST_WRITTEN_OUT

    @property
    def steps(self) -> list[int]:
        """Options for how many channels of the sum are written out."""
        return [s for s in divisors(self.depth, MOST_STEPS) if s in (1, 2, 4, 8, self.depth)]

    @property
    def step(self) -> int:
        """Default of them; pixels that share vectors load four inputs at once, neighbours all."""
        fitting = [step for step in self.steps if step <= QUARTER] or [1]
        if self.few_registers and self.kernel != (1, 1):
            return fitting[-1] if self.shares else 1
        longest = self.neighbours or (self.shares and fitting[-1] < QUARTER)
        return self.steps[-1] if longest else fitting[-1]


def _convolution_form(
    shape: _ConvolutionShape,
    vectors: int,
    tiles: list[int],
    order: str,
    staged: int,
    row: _Row,
) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        accumulate, output = schedule.get_sblock(ACCUMULATE), schedule.get_sblock(OUTPUT)
        taken = schedule.get_sblock(TAKEN)
        if not staged:
            schedule.compute_inline(taken)
        if vectors < shape.vectors:
            block_weight(schedule, accumulate, vectors * shape.lanes)
        p, q, o, kh, kw, k = schedule.get_loops(accumulate)
        p_out, p_in = schedule.split(p, [None, choose(tiles, tiles[0])])
        o_out, o_in, o_lane = schedule.split(o, [None, vectors, shape.lanes])
        loops = {"p": p_out, "q": q, "o": o_out}
        outer = [loops[axis] for axis in order]
        if staged and row is _Row.STEPS:
            together = [s for s in STAGED_TOGETHER if shape.depth % (staged * s) == 0]
            steps = [choose(together, together[-1]), staged]
        else:
            steps = [staged or choose(shape.steps, shape.step)]
        k_out, *k_in = schedule.split(k, [None, *steps])
        sums, tile = [kh, kw, k_out, *k_in], [o_in, p_in] if staged else [p_in, o_in]
        if row is _Row.WRITTEN_OUT:
            # What neighbouring windows share stays in registers.
            sums, tile = [kh, k_out, *k_in], [p_in, kw, o_in]
        if row is _Row.NEIGHBOURS:
            # `load_neighbours` loads the row's columns as vectors, of which multiply-adds pick.
            sums, tile = [kh, k_out, *k_in], [kw, o_in, p_in]
        schedule.reorder(*outer, *sums, *tile, o_lane)
        # Tiles keep their scope: small ones TVM then leaves on the stack, where LLVM finds them
        # registers; "local" ones it takes from a workspace, and LLVM stores them in every step.
        # Unit loops are kept so that a trace finds the same loops whatever its numbers are.
        written = output
        if shape.scattered:
            written = schedule.get_sblock(FINISHED)
            schedule.reverse_compute_at(written, outer[-1], preserve_unit_loops=True)
        schedule.reverse_compute_at(output, outer[-1], preserve_unit_loops=True)
        if staged:
            _stage(schedule, taken, (k_out, *k_in)[-2])
        schedule.vectorize(o_lane)
        for loop in (*tile, *k_in, *((k_out,) if row is _Row.WRITTEN_OUT else ())):
            schedule.unroll(loop)
        tile_in_registers(schedule, schedule.decompose_reduction(accumulate, kh))
        _write_tile(schedule, shape, output, written)
        if shape.shares is not None:
            schedule.annotate(accumulate, SHARED, choose([0, 1], int(shape.shares)))

    return apply


def _write_tile(schedule: Schedule, shape: _ConvolutionShape, output: Any, written: Any) -> None:
    """Write a tile's outputs as vectors; those that go apart one by one."""
    if shape.scattered:
        for loop in schedule.get_loops(output)[-3:]:
            schedule.unroll(loop)
    *_, out_p, _, out_o = schedule.get_loops(written)
    if shape.whole:
        out_o, out_lane = schedule.split(out_o, [None, shape.lanes])
        schedule.vectorize(out_lane)
        schedule.unroll(out_o)
    else:
        # `finishing` cuts it into whole vectors and a rest.
        schedule.vectorize(out_o)
    schedule.unroll(out_p)


def _stage(schedule: Schedule, taken: Any, loop: Any) -> None:
    """Load the tile's input channels as vectors, of which multiply-adds then pick lanes."""
    schedule.compute_at(taken, loop, preserve_unit_loops=True)
    pixel, _, _, _, channel = schedule.get_loops(taken)[-5:]
    schedule.vectorize(channel)
    schedule.unroll(pixel)
