"""Outputs that fill no whole vector are written beside those that do.

TVM's schedule primitives cannot say so, since they want one writer for each buffer: the two are
parted in the scheduled code.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm_ffi import structural_map

from shuffledeploy.compiler.ir.attributes import LANES, WINDOW, attribute, kind_of
from shuffledeploy.compiler.ir.tir import with_values
from shuffledeploy.compiler.kernels.tiling import MASKED_LANES


def cut_odd_vectors(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Cut vectors of a scheduled kernel into whole ones and the rest.

    Before::

        for o in vectorized(40): out[o] = total[o]      # lanes = 16

    After::

        for v in unrolled(2):
            for o in vectorized(16): out[v * 16 + o] = total[v * 16 + o]
        for o in vectorized(8): out[32 + o] = total[32 + o]

    A vector of 40 read from sums that stand in vectors of 16 would take them through memory. The
    sums of windows stand in vectors of 40, too: see :mod:`compiler.passes.tir.masked_vectors`.
    """
    lanes = int(attribute(function, LANES) or 0)
    if not lanes or (lanes == MASKED_LANES and kind_of(function) == WINDOW):
        return function

    def cut(loop: Any) -> Any:
        extent = int(loop.extent) if loop.kind == tirx.ForKind.VECTORIZED else 0
        if extent < lanes or extent % lanes == 0:
            return loop
        whole = extent // lanes
        vector, lane = tirx.Var("v", "int32"), tirx.Var("lane", "int32")
        inner = with_values(loop.body, {loop.loop_var: vector * lanes + lane})
        first = tirx.For(lane, 0, lanes, tirx.ForKind.VECTORIZED, inner)
        rest = tirx.Var("rest", "int32")
        last = with_values(loop.body, {loop.loop_var: rest + whole * lanes})
        return tirx.SeqStmt([
            tirx.For(vector, 0, whole, tirx.ForKind.UNROLLED, first),
            tirx.For(rest, 0, extent - whole * lanes, tirx.ForKind.VECTORIZED, last),
        ])  # fmt: skip

    return function.with_body(structural_map(function.body, (tirx.For, cut)))
