"""What a kernel still lacks once it is scheduled, and TVM's schedule primitives cannot say.

They want one writer for each buffer. Outputs that fill no whole vector are written beside those
that do, and pixels that fill no whole tile beside those that do, so they are parted in the
scheduled code, just before it is built. So are the fetches of weights added, which no primitive
knows.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from compile.kernels.blocks import with_values
from compile.kernels.fetching import fetch_next_weights
from compile.kernels.last_tile import part_last_tile
from compile.kernels.shared_vectors import SHARED, is_shared
from compile.kernels.tiling import MASKED_LANES

KIND = "kernel"
WINDOW = "window"
LANES = "lanes"


def kind_of(function: Any) -> str:
    """Kind of a kernel of ours; ``""`` for whatever else."""
    attributes = function.attrs if isinstance(function, tirx.PrimFunc) else None
    return str(attributes[KIND]) if attributes and KIND in attributes else ""


def finish_kernels(module: tvm.IRModule, *, fetches: bool = False) -> tvm.IRModule:
    """Finish every scheduled kernel of a module.

    Parameters
    ----------
    module : tvm.IRModule
        Scheduled kernels, and whatever else.
    fetches : bool
        Whether convolutions ask for weights ahead, as :func:`fetch_next_weights` says.
    """
    finished = {
        variable: finish(function, fetches=fetches) if kind_of(function) else function
        for variable, function in module.functions.items()
    }
    return tvm.IRModule(finished, attrs=module.attrs)


def finish(function: tirx.PrimFunc, *, fetches: bool = False) -> tirx.PrimFunc:
    """Cut a kernel's odd vectors, let it ask for weights ahead, and take its last tile apart.

    Before::

        for o in vectorized(40): out[o] = total[o]      # lanes = 16

    After::

        for v in unrolled(2):
            for o in vectorized(16): out[v * 16 + o] = total[v * 16 + o]
        for o in vectorized(8): out[32 + o] = total[32 + o]

    A vector of 40 read from sums that stand in vectors of 16 would take them through memory. The
    sums of windows stand in vectors of 40, too: see :mod:`compile.kernels.masked_vectors`.
    """
    if is_shared(function):
        # What a block asks for is lost with the blocks.
        function = function.with_attr(SHARED, 1)
    lanes = int(function.attrs[LANES]) if LANES in function.attrs else 0
    if lanes and not (lanes == MASKED_LANES and kind_of(function) == WINDOW):
        function = function.with_body(_cut_vectors(function.body, lanes))
    return part_last_tile(fetch_next_weights(function) if fetches else function)


def _cut_vectors(body: Any, lanes: int) -> Any:
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

    return structural_map(body, (tirx.For, cut))
