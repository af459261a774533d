"""What keeps LLVM from holding a lowered kernel's sums in registers is put right."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from shuffledeploy.compiler.ir.attributes import (
    BUFFERED,
    FETCHES,
    INTERNAL,
    LANES,
    attribute,
    kind_of,
)
from shuffledeploy.compiler.ir.tir import LOCAL, picked, tiles_in
from shuffledeploy.compiler.ir.tvm_edges import ON_STACK


def load_whole_vectors(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Take the first lanes of a tile's vector from the whole of it.

    Before::

        out[16:24] = total[16:24]                       # sums stand in vectors of 16

    After::

        out[16:24] = total[16:32][0:8]

    For the former LLVM keeps the sums as single numbers wherever branches meet: the first
    convolution of ShuffleNet 1x took 1.9 times as long.
    """
    lanes = int(attribute(function, LANES) or 0)
    if not lanes:
        return function
    tiles = tiles_in(function.body)

    def load(value: Any) -> Any:
        at = value.indices[0] if len(value.indices) == 1 else None
        if not isinstance(at, tirx.Ramp) or not isinstance(at.base, tirx.IntImm):
            return value
        first, wanted = int(at.base), int(at.lanes)
        if wanted >= lanes or first % lanes or not any(value.source.same_as(t) for t in tiles):
            return value
        if int(at.stride) != 1 or first + lanes > int(value.source.shape[0]):
            return value
        whole = tirx.BufferLoad(value.source, [tirx.Ramp(at.base, 1, lanes)])
        return picked([whole], range(wanted))

    return function.with_body(structural_map(function.body, (tvm.ir.TensorLoad, load)))


def keep_on_stack(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Let a function that is internal, or fetches weights, have its tiles on the stack.

    TVM takes larger ones from a workspace of the device. An internal function does not know the
    device, and of a workspace LLVM thinks that a fetch of weights may read it: sums then went there
    in every step, and layers of 14x14 pixels took 1.25 times as long.
    """
    whole = attribute(function, INTERNAL) is not None or attribute(function, FETCHES) is not None
    if not whole and kind_of(function) not in BUFFERED:
        return function

    def keep(allocation: Any) -> Any:
        if not whole and allocation.buffer.scope() != LOCAL:
            return allocation
        kept = {ON_STACK: tirx.IntImm("bool", 1)}
        return tirx.AllocBuffer(allocation.buffer, {**dict(allocation.annotations or {}), **kept})

    return function.with_body(structural_map(function.body, (tirx.AllocBuffer, keep)))
