"""Schedule forms of linear layers in half precision, whose long sums go on in float32.

A tile of outputs stands in registers twice: what a block of channels sums up in half, and the whole
sum in float32, two registers for each of half's::

    for block:
        inputs = x[block]                               # a vector, of which products pick lanes
        for k: partial[o] += inputs[k] * w[block, k, o]
        total[o] += float32(partial[o])
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from shuffledeploy.compiler.kernels.blocks import ACCUMULATE, OUTPUT, PARTIAL, TAKEN
from shuffledeploy.compiler.kernels.packing import block_weight
from shuffledeploy.compiler.kernels.tiling import Choose, Core, Form, divisors, extents_of

# Registers of a vector of outputs: a part of its sum, and the sum.
REGISTERS = 3
MOST_ROWS = 4


def block_sum_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """List the forms, the one with the most outputs in a tile first."""
    probe = Schedule(tvm.IRModule({"main": function}))
    rows, _, padded, _ = extents_of(probe, probe.get_sblock(ACCUMULATE))
    lanes = int(function.attrs["lanes"])
    outputs = extents_of(probe, probe.get_sblock(OUTPUT))[2]
    vectors = padded // lanes
    whole = outputs % lanes == 0
    most = (core.registers - 2) // REGISTERS
    widths = divisors(vectors, most) if whole else [vectors]
    forms = []
    for width in reversed(widths):
        tiles = [tile for tile in divisors(rows, MOST_ROWS) if tile * width <= most] or [1]
        forms.append(_block_sum_form(lanes, width, tiles, whole))
    return forms


def _block_sum_form(lanes: int, width: int, tiles: list[int], whole: bool) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        accumulate, output = schedule.get_sblock(ACCUMULATE), schedule.get_sblock(OUTPUT)
        partial, taken = schedule.get_sblock(PARTIAL), schedule.get_sblock(TAKEN)
        block_weight(schedule, partial, width * lanes)
        p, q, o, b = schedule.get_loops(accumulate)
        p_out, p_in = schedule.split(p, [None, choose(tiles, tiles[-1])])
        o_out, o_in, o_lane = schedule.split(o, [None, width, lanes])
        schedule.reorder(q, o_out, p_out, b, p_in, o_in, o_lane)
        schedule.compute_at(partial, b, preserve_unit_loops=True)
        schedule.reverse_compute_at(output, p_out, preserve_unit_loops=True)
        *_, p_part, _, o_part, _, k = schedule.get_loops(partial)
        o_part, lane_part = schedule.split(o_part, [None, lanes])
        schedule.reorder(k, p_part, o_part, lane_part)
        schedule.compute_at(taken, b, preserve_unit_loops=True)
        row, _, _, _, channel = schedule.get_loops(taken)[-5:]
        schedule.vectorize(channel)
        schedule.unroll(row)
        for vector, loops in ((lane_part, (o_part, p_part, k)), (o_lane, (o_in, p_in))):
            schedule.vectorize(vector)
            for loop in loops:
                schedule.unroll(loop)
        for block, reduction in ((partial, k), (accumulate, b)):
            first = schedule.decompose_reduction(block, reduction)
            *_, rows, vectors, lane = schedule.get_loops(first)
            schedule.vectorize(lane)
            schedule.unroll(vectors)
            schedule.unroll(rows)
        *_, out_p, _, out_o = schedule.get_loops(output)
        if whole:
            out_o, out_lane = schedule.split(out_o, [None, lanes])
            schedule.vectorize(out_lane)
            schedule.unroll(out_o)
        else:
            schedule.vectorize(out_o)
        schedule.unroll(out_p)

    return apply
