"""Schedule forms of attention: register tiles of scores, and of sums of values."""

from __future__ import annotations

import itertools

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.attributes import LANES
from shuffledeploy.compiler.kernels import attention as blocks
from shuffledeploy.compiler.kernels.matrix_tiles import (
    RegisterTiles,
    begin_in_registers,
    compute_in_tiles,
    copy_by_vectors,
    register_tiles,
    write_by_vectors,
)
from shuffledeploy.compiler.kernels.row_reductions import OF_LANES
from shuffledeploy.compiler.kernels.softmax import LARGEST, POWERS, SUM
from shuffledeploy.compiler.kernels.tiling import (
    Choose,
    Core,
    Form,
    divisors,
    extents_of,
    reduce_by_lanes,
    reduce_lanes,
)

_MOST_FORMS = 6


def attention_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """List the forms of an attention, the one with the fewest loads a multiply-add first.

    For each batch keys and values are packed; then blocks of rows follow one another. In a block
    all scores are computed tile by tile, then their softmax, then the sums of values.
    """
    probe = Schedule(tvm.IRModule({"main": function}))
    lanes = int(function.attrs[LANES])
    *_, rows, keys, _ = extents_of(probe, probe.get_sblock(blocks.TOTAL))
    *_, padded, _ = extents_of(probe, probe.get_sblock(blocks.WEIGHTED))
    outputs = extents_of(probe, probe.get_sblock(blocks.WRITTEN))[-1]
    # Outputs beside whole vectors belong to the one tile that has them all.
    widths = divisors(padded // lanes, core.registers) if outputs == padded else [padded // lanes]
    of_scores = register_tiles(rows, divisors(keys // lanes, core.registers), core)
    of_values = register_tiles(rows, widths, core)
    pairs = sorted(
        itertools.product(enumerate(of_scores), enumerate(of_values)),
        key=lambda pair: pair[0][0] + pair[1][0],
    )
    return [_form(lanes, scores, values) for (_, scores), (_, values) in pairs[:_MOST_FORMS]]


def _form(lanes: int, of_scores: RegisterTiles, of_values: RegisterTiles) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        get = schedule.get_sblock
        values = compute_in_tiles(schedule, get(blocks.WEIGHTED), lanes, of_values, choose)
        _, batch, block = values.outer
        schedule.reverse_compute_at(get(blocks.WRITTEN), values.tile, preserve_unit_loops=True)
        for name in reversed(blocks.BLOCKS_OF_ROWS):
            schedule.compute_at(get(name), block, preserve_unit_loops=True)
        for name in (blocks.VALUES, blocks.KEYS):
            schedule.compute_at(get(name), batch, preserve_unit_loops=True)
        scores = compute_in_tiles(schedule, get(blocks.TOTAL), lanes, of_scores, choose)
        schedule.reverse_compute_at(get(blocks.SCORES), scores.tile, preserve_unit_loops=True)
        for name in (blocks.WRITTEN, blocks.SCORES):
            write_by_vectors(schedule, get(name), lanes)
        for name in (blocks.KEYS, blocks.VALUES, POWERS):
            copy_by_vectors(schedule, get(name), lanes)
        schedule.vectorize(schedule.get_loops(get(blocks.SHARES))[-1])
        for name in (LARGEST, SUM):
            reduce_by_lanes(schedule, get(name + OF_LANES))
            reduce_lanes(schedule, get(name))
        begin_in_registers(schedule, get(blocks.TOTAL), scores)
        begin_in_registers(schedule, get(blocks.WEIGHTED), values)

    return apply
