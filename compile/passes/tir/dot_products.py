"""Sums of four products of eight bits become what the target has for them.

Before::

    total[0:4] = dot(total[0:4], broadcast(word(x[p])), W[0:4])

After, on cores with dot products (AArch64 since the Cortex-A55)::

    total[0:4] = sdot(total[0:4], int8x16(W[0:4]), int8x16(broadcast(int32(x[p:p+4]))))

and elsewhere::

    total[0:4] = total[0:4] + byte 0 of both multiplied + byte 1 ... + byte 3 ...

Words of a column (``column(a, b, c, d)``) are four vectors of int8, interleaved twice::

    zip(zip(a, c), zip(b, d))

Words of two pairs (``dot_of_pairs(total, pair(x[p]), pair(x[p+2]), V[0:4], W[0:4])``) are for
AArch64 without dot products; the two products of a pair stand side by side, in 16 bits each::

    total[0:4] = sadalp(total[0:4], smlal(smull(broadcast(x[p:p+2]), V[0:4]),
                                          broadcast(x[p+2:p+4]), W[0:4]))
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from shuffledeploy.compiler.ir.memory_layout import INT8, INT16, INT32
from shuffledeploy.compiler.ir.tir import picked
from shuffledeploy.compiler.kernels.int8_products import (
    COLUMN,
    DOT,
    DOT_OF_PAIRS,
    FOUR,
    PAIR,
    TWO,
    WORD,
)
from shuffledeploy.compiler.kernels.tiling import Core

_SMULL, _PAIRWISE = "llvm.aarch64.neon.smull.v8i16", "llvm.aarch64.neon.saddlp.v4i32.v8i16"
_SDOT, _SDOT_LANES = "llvm.aarch64.neon.sdot.v4i32.v16i8", 4
# Channels of which columns are interleaved together, and bytes of a vector.
_CHANNELS, _BYTES = (16, 8), 16
# How many int8 are read together as one number, and of what type that is.
_WIDTHS = {WORD: (FOUR, INT32), PAIR: (TWO, INT16)}
_BITS = 8


def write_dot_products(function: tirx.PrimFunc, core: Core) -> tirx.PrimFunc:
    """Write out the words and the dot products of a lowered function.

    Parameters
    ----------
    function : tirx.PrimFunc
        Lowered.
    core : Core
        The target's.
    """

    def write(call: Any) -> Any:
        name = getattr(call.op, "name", "")
        if name in _WIDTHS:
            return _read_together(call.args[0], *_WIDTHS[name])
        if name == DOT_OF_PAIRS:
            return (_smull if core.multiplies_by_lane else _by_bytes)(*call.args)
        if name != DOT:
            # A dot product writes the column that it takes.
            return call
        total, left, right = call.args
        if getattr(getattr(left, "op", None), "name", "") == COLUMN:
            return (_sdot_columns if core.dot_products else _by_rows)(total, left.args, right)
        return (_sdot if core.dot_products else _by_bytes)(total, left, right)

    def write_columns(call: Any) -> Any:
        return _as_word(call.args) if getattr(call.op, "name", "") == COLUMN else call

    body = structural_map(function.body, (tvm.ir.Call, write))
    return function.with_body(structural_map(body, (tvm.ir.Call, write_columns)))


def _read_together(first: Any, count: int, kind: str) -> Any:
    """Load so many int8 from each that a load names on, as one number of a type."""
    (at,) = first.indices
    lanes = _lanes(first)
    if lanes == 1:
        whole = tirx.BufferLoad(first.source, [tirx.Ramp(at, 1, count)])
        return tirx.reinterpret(kind, whole)
    if isinstance(at, tirx.Ramp) and int(at.stride) == count:
        whole = tirx.BufferLoad(first.source, [tirx.Ramp(at.base, 1, count * lanes)])
        return tirx.reinterpret(f"{kind}x{lanes}", whole)
    apart = [tirx.BufferLoad(first.source, [_lane(at, lane)]) for lane in range(lanes)]
    return picked([_read_together(load, count, kind) for load in apart], range(lanes))


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


def _smull(total: Any, *pairs: Any) -> Any:
    """Multiply four lanes of pairs at a time, and add up what stands side by side."""
    lanes, parts = _lanes(total), []
    if lanes % _SDOT_LANES:
        return _by_bytes(total, *pairs)
    for first in range(0, lanes, _SDOT_LANES):
        own = range(first, first + _SDOT_LANES)
        taken = [tirx.reinterpret(f"{INT8}x8", _lanes_of(pair, own)) for pair in pairs]
        product, more = (
            tirx.call_llvm_pure_intrin(f"{INT16}x8", _SMULL, weights, numbers)
            for numbers, weights in zip(taken[:2], taken[2:], strict=True)
        )
        so_far = total if lanes == _SDOT_LANES else _lanes_of(total, own)
        added = tirx.call_llvm_pure_intrin(f"{INT32}x4", _PAIRWISE, product + more)
        parts.append(so_far + added)
    return parts[0] if len(parts) == 1 else picked(parts, range(lanes))


def _sdot_columns(total: Any, apart: Sequence[Any], right: Any) -> Any:
    """Add up dot products of columns: sixteen channels at a time, or what is left of them."""
    lanes, parts, first = _lanes(total), [], 0
    if lanes == 1:
        return _by_rows(total, apart, right)
    while first < lanes:
        taken = next((n for n in _CHANNELS if n <= lanes - first), _SDOT_LANES)
        places = [min(lane, lanes - 1) for lane in range(first, first + taken)]
        words = _interleaved([_lanes_of(vector, places) for vector in apart])
        for start, word in zip(range(0, taken, _SDOT_LANES), words, strict=True):
            own = places[start : start + _SDOT_LANES]
            operands = (tirx.reinterpret(f"{INT8}x16", _lanes_of(right, own)), word)
            parts.append(
                tirx.call_llvm_pure_intrin(f"{INT32}x4", _SDOT, _lanes_of(total, own), *operands)
            )
        first += taken
    return picked(parts, range(lanes))


def _lanes_of(vector: Any, lanes: Sequence[int]) -> Any:
    """Take some lanes of a vector; of a broadcast, as many of the same."""
    if isinstance(vector, tirx.Broadcast):
        return tirx.Broadcast(vector.value, len(lanes))
    # No more lanes are taken than there are.
    return picked([vector] * -(-len(lanes) // _lanes(vector)), lanes)


def _interleaved(apart: Sequence[Any]) -> list[Any]:
    """Interleave four vectors of int8; give what comes of it, sixteen bytes at a time."""
    first, second, third, fourth = apart
    even, odd = _zipped(first, third), _zipped(second, fourth)
    return [word for left, right in zip(even, odd, strict=True) for word in _zipped(left, right)]


def _zipped(left: Any, right: Any) -> list[Any]:
    """Interleave two vectors, as one of up to sixteen bytes or as two."""
    lanes = _lanes(left)
    order = [place + lanes * side for place in range(lanes) for side in (0, 1)]
    cut = [order[i : i + _BYTES] for i in range(0, len(order), _BYTES)]
    return [picked([left, right], places) for places in cut]


def _as_word(apart: Sequence[Any]) -> Any:
    """Write a column that stands in memory: four bytes, the first lowest."""
    kind = str(apart[0].ty.dtype).replace(INT8, INT32)
    bytes_up = [
        tirx.shift_left(
            tirx.bitwise_and(tirx.Cast(kind, value), tirx.const(0xFF, kind)),
            tirx.const(8 * place, kind),
        )
        for place, value in enumerate(apart)
    ]
    return functools.reduce(tirx.bitwise_or, bytes_up)


def _by_rows(total: Any, apart: Sequence[Any], right: Any) -> Any:
    for place, values in enumerate(apart):
        total = total + tirx.Cast(str(total.ty.dtype), values) * _byte(right, place)
    return total


def _by_bytes(total: Any, *factors: Any) -> Any:
    """Add the products of the bytes in words, or pairs, of which the first half are numbers."""
    half = len(factors) // 2
    for left, right in zip(factors[:half], factors[half:], strict=True):
        for place in range(_bits(left) // _BITS):
            product = _byte(left, place) * _byte(right, place)
            total = total + tirx.Cast(str(total.ty.dtype), product)
    return total


def _bits(vector: Any) -> int:
    """Count the bits of an element."""
    return int(tvm.DataType(str(vector.ty.dtype)).bits)


def _byte(vector: Any, place: int) -> Any:
    """Take one signed byte of each word or pair."""
    high = _bits(vector) - _BITS
    up = tirx.const(high - 8 * place, str(vector.ty.dtype))
    return tirx.shift_right(tirx.shift_left(vector, up), tirx.const(high, str(vector.ty.dtype)))


def _lanes(expr: Any) -> int:
    return int(tvm.DataType(str(expr.ty.dtype)).lanes)
