"""Schedule form of linear layers whose weights come from memory."""

from __future__ import annotations

from tvm.s_tir import Schedule

from shuffledeploy.compiler.kernels.blocks import ACCUMULATE, OUTPUT, TAKEN
from shuffledeploy.compiler.kernels.tiling import Choose, Form, vectorize_copy


def streaming_form(lanes: int, steps: list[int]) -> Form:
    """Read weights row by row, all sums of the layer standing in the first cache."""

    def apply(schedule: Schedule, choose: Choose) -> None:
        accumulate, output = schedule.get_sblock(ACCUMULATE), schedule.get_sblock(OUTPUT)
        schedule.compute_inline(schedule.get_sblock(TAKEN))
        p, q, o, kh, kw, k = schedule.get_loops(accumulate)
        o_out, o_lane = schedule.split(o, [None, lanes])
        k_out, k_in = schedule.split(k, [None, choose(steps, steps[-1])])
        schedule.reorder(p, q, kh, kw, k_out, o_out, k_in, o_lane)
        schedule.vectorize(o_lane)
        schedule.unroll(k_in)
        first = schedule.decompose_reduction(accumulate, kh)
        schedule.vectorize(schedule.get_loops(first)[-1])
        vectorize_copy(schedule, output, lanes)

    return apply
