"""Sums of four products of eight bits become what the target has for them.

Before::

    total[0:4] = dot(total[0:4], broadcast(word(x[p])), W[0:4])

After, on cores with dot products (AArch64 since the Cortex-A55)::

    total[0:4] = sdot(total[0:4], int8x16(W[0:4]), int8x16(broadcast(int32(x[p:p+4]))))

and elsewhere::

    total[0:4] = total[0:4] + byte 0 of both multiplied + byte 1 ... + byte 3 ...
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from shuffledeploy.compiler.ir.memory_layout import INT8, INT32
from shuffledeploy.compiler.ir.tir import picked
from shuffledeploy.compiler.kernels.int8_products import DOT, FOUR, WORD

_SDOT, _SDOT_LANES = "llvm.aarch64.neon.sdot.v4i32.v16i8", 4


def write_dot_products(function: tirx.PrimFunc, has_dot: bool) -> tirx.PrimFunc:
    """Write out the words and the dot products of a lowered function.

    Parameters
    ----------
    function : tirx.PrimFunc
        Lowered.
    has_dot : bool
        Whether the target is AArch64 with dot products.
    """

    def write(call: Any) -> Any:
        name = getattr(call.op, "name", "")
        if name == WORD:
            return _word(call.args[0])
        if name == DOT:
            return (_sdot if has_dot else _by_bytes)(*call.args)
        return call

    return function.with_body(structural_map(function.body, (tvm.ir.Call, write)))


def _word(first: Any) -> Any:
    """Load the words whose first elements a load names."""
    (at,) = first.indices
    lanes = _lanes(first)
    if lanes == 1:
        whole = tirx.BufferLoad(first.source, [tirx.Ramp(at, 1, FOUR)])
        return tirx.reinterpret(INT32, whole)
    if isinstance(at, tirx.Ramp) and int(at.stride) == FOUR:
        whole = tirx.BufferLoad(first.source, [tirx.Ramp(at.base, 1, FOUR * lanes)])
        return tirx.reinterpret(f"{INT32}x{lanes}", whole)
    words = [_word(tirx.BufferLoad(first.source, [_lane(at, lane)])) for lane in range(lanes)]
    return picked(words, range(lanes))


def _lane(vector: Any, lane: int) -> Any:
    if isinstance(vector, tirx.Broadcast):
        return vector.value
    if isinstance(vector, tirx.Ramp):
        return vector.base + vector.stride * lane
    return tirx.Shuffle([vector], [tirx.IntImm(INT32, lane)])


def _sdot(total: Any, left: Any, right: Any) -> Any:
    lanes = _lanes(total)
    if lanes % _SDOT_LANES:
        return _by_bytes(total, left, right)
    if lanes > _SDOT_LANES:
        parts = [
            _sdot(*(picked([v], range(i, i + _SDOT_LANES)) for v in (total, left, right)))
            for i in range(0, lanes, _SDOT_LANES)
        ]
        return picked(parts, range(lanes))
    # The instruction takes one lane of its last operand: what is the same for all outputs.
    as_bytes = (tirx.reinterpret(f"{INT8}x16", vector) for vector in (right, left))
    return tirx.call_llvm_pure_intrin(f"{INT32}x4", _SDOT, total, *as_bytes)


def _by_bytes(total: Any, left: Any, right: Any) -> Any:
    for place in range(FOUR):
        total = total + _byte(left, place) * _byte(right, place)
    return total


def _byte(vector: Any, place: int) -> Any:
    """Take one signed byte of each word."""
    high = 8 * (FOUR - 1)
    up = tirx.const(high - 8 * place, str(vector.ty.dtype))
    return tirx.shift_right(tirx.shift_left(vector, up), tirx.const(high, str(vector.ty.dtype)))


def _lanes(expr: Any) -> int:
    return int(tvm.DataType(str(expr.ty.dtype)).lanes)
