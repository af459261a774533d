"""Schedule form of kernels that compute something of each row before they write it."""

from __future__ import annotations

from tvm.s_tir import Schedule

from shuffledeploy.compiler.kernels.blocks import OUTPUT
from shuffledeploy.compiler.kernels.matrix_tiles import copy_by_vectors
from shuffledeploy.compiler.kernels.row_reductions import OF_LANES
from shuffledeploy.compiler.kernels.tiling import (
    Choose,
    Core,
    Form,
    divisors,
    extents_of,
    reduce_by_lanes,
    reduce_lanes,
)

# Vectors that are written out, at most.
_MOST_VECTORS = 8


def rows_form(core: Core) -> Form:
    """Give the form of layer norms and softmaxes: block after block of rows, by vectors.

    While the lanes of one row are reduced, those of other rows of its block go on.
    """

    def apply(schedule: Schedule, choose: Choose) -> None:
        output = schedule.get_sblock(OUTPUT)
        before = schedule.get_child_blocks(schedule.get_sblock("root"))[:-1]
        names = [schedule.get(block).name_hint for block in before]
        by_lanes = [name + OF_LANES in names for name in names]
        lanes = extents_of(schedule, before[by_lanes.index(True)])[-1]
        rows, _, channel = schedule.get_loops(output)
        vectors = divisors(int(schedule.get(channel).extent) // lanes, _MOST_VECTORS)
        _, vector, lane = schedule.split(channel, [None, choose(vectors, vectors[-1]), lanes])
        schedule.vectorize(lane)
        schedule.unroll(vector)
        for block in reversed(before):
            schedule.compute_at(block, rows, preserve_unit_loops=True)
        for block, name, of_lanes in zip(before, names, by_lanes, strict=True):
            if of_lanes:
                reduce_lanes(schedule, block)
            elif name.endswith(OF_LANES):
                reduce_by_lanes(schedule, block)
            elif len(schedule.get(block).iter_vars) == len((rows, vector, lane)):
                copy_by_vectors(schedule, block, lanes)

    return apply
