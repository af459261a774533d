"""Vectors of int8 that are written side by side are written as one.

Before::

    out[0:4] = int8x4(a)                                # a, b, c, d: vectors of four of 32 bits
    out[4:8] = int8x4(b)
    out[8:12] = int8x4(c)
    out[12:16] = int8x4(d)

After::

    out[0:16] = int8x16(a, b, c, d)

Sums stand in vectors of 32 bits, of which four make one of eight bits: made alone, each takes as
many instructions to become narrow as four together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from shuffledeploy.compiler.ir.memory_layout import INT8
from shuffledeploy.compiler.ir.tir import loads_in, picked, with_values

# Vectors that become one, the most first.
_TOGETHER = (4, 2)
_WHOLE_BITS = 32


def join_stores(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Join the stores of a lowered function; see the module's docstring."""
    return function.with_body(structural_map(function.body, (tirx.SeqStmt, _joined)))


@dataclasses.dataclass
class _Run:
    """Stores side by side, in their order."""

    stores: list[Any]

    def goes_on(self, store: Any, named: Mapping[tirx.Var, Any]) -> bool:
        """Whether a store writes what comes behind those of the run."""
        last = self.stores[-1]
        if not last.buffer.same_as(store.buffer) or _lanes(last) != _lanes(store):
            return False
        apart = store.indices[0].base - last.indices[0].base
        step = tvm.sym.Analyzer().simplify(with_values(with_values(apart, named), named))
        return isinstance(step, tirx.IntImm) and int(step) == _lanes(last)

    def written(self) -> list[Any]:
        """Write the stores, as few as there can be."""
        left, found = self.stores, []
        while left:
            count = next((n for n in _TOGETHER if n <= len(left)), 1)
            found.append(left[0] if count == 1 else _one_of(left[:count]))
            left = left[count:]
        return found


def _joined(sequence: tirx.SeqStmt) -> Any:
    if not any(map(_narrows, sequence.seq)):
        return sequence
    statements: list[Any] = []
    run = _Run([])
    named: dict[tirx.Var, Any] = {}
    for statement in sequence.seq:
        if isinstance(statement, tirx.Bind) and not loads_in(statement.value):
            # A name for a number: it may stand before the run.
            named[statement.var] = with_values(statement.value, named)
            statements.append(statement)
        elif _narrows(statement) and run.stores and run.goes_on(statement, named):
            run.stores.append(statement)
        else:
            statements += run.written()
            run = _Run([statement]) if _narrows(statement) else _Run([])
            statements += [] if run.stores else [statement]
    return tirx.SeqStmt([*statements, *run.written()])


def _narrows(statement: Any) -> bool:
    """Whether a statement writes a vector of int8 that is made of a wider one, side by side."""
    if not isinstance(statement, tirx.BufferStore) or len(statement.indices) != 1:
        return False
    at, value = statement.indices[0], statement.value
    if not isinstance(at, tirx.Ramp) or int(at.stride) != 1:
        return False
    # What is read of the tensor that is written is what stands where it is written.
    reads_others = all(
        not load.source.same_as(statement.buffer) for load in loads_in(statement.value)
    )
    return isinstance(value, tirx.Cast) and _element(value) == INT8 and reads_others


def _one_of(stores: Sequence[Any]) -> Any:
    first = stores[0]
    at = tirx.Ramp(first.indices[0].base, 1, len(stores) * _lanes(first))
    return tirx.BufferStore(first.buffer, _together([store.value for store in stores]), [at])


def _together(values: Sequence[Any]) -> Any:
    """Make one vector of several: what is applied to vectors of less than 32 bits comes last."""
    first, lanes = values[0], sum(int(tvm.DataType(str(v.ty.dtype)).lanes) for v in values)
    if isinstance(first, tirx.Broadcast):
        return tirx.Broadcast(first.value, lanes)
    if tvm.DataType(str(first.ty.dtype)).bits < _WHOLE_BITS:
        if isinstance(first, tirx.Cast):
            return tirx.Cast(
                f"{_element(first)}x{lanes}", _together([value.value for value in values])
            )
        if isinstance(first, (tirx.Max, tirx.Min)):
            sides = ([value.a for value in values], [value.b for value in values])
            return type(first)(*map(_together, sides))
    return picked(values, range(lanes))


def _element(expr: Any) -> str:
    return str(expr.ty.dtype).split("x", maxsplit=1)[0]


def _lanes(store: Any) -> int:
    return int(store.indices[0].lanes)
