"""Attention: each row's scores against all keys, their softmax, and a sum of values by it.

One kernel computes, for each query row ``m`` of each pair of batch indices::

    score[t] = scale * sum over k of query[m, k] * key[t, k]  (+ added[m, t])
    out[m, d] = sum over t of exp(score[t] - max) * value[t, d] / sum over t of exp(score[t] - max)

Scores of a block of rows stand in the cache and never in memory. Keys are transposed, and keys and
values padded to whole vectors, once for each batch. Operands are read, and rows written, where
strides say: slices and transpositions around an attention cost nothing.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.blocks import axes, named, written
from shuffledeploy.compiler.kernels.matrix_tiles import padded_columns
from shuffledeploy.compiler.kernels.row_blocks import count_blocks, row_of, rows_of_block
from shuffledeploy.compiler.kernels.row_reductions import (
    OF_LANES,
    numbers_of_rows,
    reduced_rows,
)
from shuffledeploy.compiler.kernels.softmax import INVERSE, LARGEST, LOWEST, POWERS, SUM
from shuffledeploy.compiler.kernels.strided import Strided, packed

#: Blocks of the kernel, in order.
KEYS, VALUES = "packed_keys", "packed_values"
TOTAL, SCORES = "score_totals", "scores"
SHARES = "shares"
WEIGHTED, WRITTEN = "weighted", "written"
#: Those that are computed for a block of rows before sums of values.
BLOCKS_OF_ROWS = (
    TOTAL, SCORES, LARGEST + OF_LANES, LARGEST, POWERS, SUM + OF_LANES, SUM, INVERSE, SHARES,
)  # fmt: skip

# Below all scores: what stands for a key that only fills a vector.
_LOWEST = -3.0e38
# Below any sum of powers with a finite score, of which the largest is 1.
_SMALLEST_SUM = 1.0e-30


@dataclasses.dataclass(frozen=True)
class Attention:
    """What one attention computes.

    Attributes
    ----------
    batch : tuple of int
        Outer and inner extent.
    rows, keys, depth, outputs : int
        Query rows, keys and values, elements of a query, elements of a value.
    query, key, value, out : Strided
        Their columns are elements of a query (``depth``) and of a value (``outputs``).
    scale : float
        What scores are multiplied with.
    added : Strided or None
        What is added to the scaled scores; its columns are keys.
    zero_rows : bool
        Whether a row of scores that are all minus infinity gives zeros; else NaN.
    lanes : int
        Floats in a vector.
    """

    batch: tuple[int, int]
    rows: int
    keys: int
    depth: int
    outputs: int
    query: Strided
    key: Strided
    value: Strided
    out: Strided
    scale: float
    added: Strided | None
    zero_rows: bool
    lanes: int

    @property
    def block(self) -> int:
        """Rows whose scores are computed before their softmax."""
        return rows_of_block(self.rows)

    @property
    def blocks(self) -> int:
        """Blocks of rows."""
        return count_blocks(self.rows, self.block)

    @property
    def padded_keys(self) -> int:
        """Keys with those that fill the last vector, and the last register tile."""
        return padded_columns(self.keys, self.lanes)

    @property
    def padded_outputs(self) -> int:
        """Elements of a value with those that fill the last vector."""
        return -(-self.outputs // self.lanes) * self.lanes

    @property
    def multiply_adds(self) -> int:
        """Of one call."""
        outer, inner = self.batch
        return outer * inner * self.rows * self.keys * (self.depth + self.outputs)


def primitive_function(attention: Attention) -> tirx.PrimFunc:
    """Write the kernel as an unscheduled TIR function.

    Returns
    -------
    tirx.PrimFunc
        Parameters: memory of the query, the key, the value and of what is added where there is
        such, each ``(size,)``; output, ``(size,)``.
    """
    return written(lambda: _body(attention))


def _body(a: Attention) -> None:
    query = T.arg("query", T.buffer((a.query.size,), FLOAT))
    key = T.arg("key", T.buffer((a.key.size,), FLOAT))
    value = T.arg("value", T.buffer((a.value.size,), FLOAT))
    added = T.arg("added", T.buffer((a.added.size,), FLOAT)) if a.added else None
    out = T.arg("out", T.buffer((a.out.size,), FLOAT))
    columns, padded = (*a.batch, a.depth, a.padded_keys), (*a.batch, a.keys, a.padded_outputs)
    keys = packed(KEYS, key, a.key.transposed, columns, a.keys)
    values = packed(VALUES, value, a.value, padded, a.outputs)
    scores = _scores(a, query, keys, added)
    shares = _softmax(a, scores)
    _write(a, shares, values, out)


def _buffer(name: str, *extents: int) -> Any:
    return named(name, T.sblock_alloc_buffer(extents, FLOAT))


def _row(a: Attention, block: Any, row: Any) -> Any:
    return row_of(a.rows, a.block, block, row)


def _scores(a: Attention, query: Any, keys: Any, added: Any) -> Any:
    extents = (*a.batch, a.blocks, a.block, a.padded_keys)
    total = _buffer(TOTAL, *extents)
    with T.grid(*extents, a.depth) as loops:
        with T.sblock(TOTAL):
            b, c, i, r, t, k = axes("SSSSSR", "b c i r t k", loops)
            with T.init():
                T.buffer_store(total, T.float32(0), [b, c, i, r, t])
            product = query[a.query.at(b, c, _row(a, i, r), k)] * keys[b, c, k, t]
            T.buffer_store(total, total[b, c, i, r, t] + product, [b, c, i, r, t])

    def score(b: Any, c: Any, i: Any, r: Any, t: Any) -> Any:
        # Powers of two cost less than those of e.
        found = total[b, c, i, r, t] * T.float32(a.scale * math.log2(math.e))
        if a.added is not None:
            column = t if a.keys == a.padded_keys else tirx.min(t, a.keys - 1)
            summand = added[a.added.at(b, c, _row(a, i, r), column)]
            found = found + summand * T.float32(math.log2(math.e))
        if a.keys != a.padded_keys:
            found = tirx.Select(t < a.keys, found, T.float32(_LOWEST))
        return found

    return numbers_of_rows(SCORES, extents, score)


def _softmax(a: Attention, scores: Any) -> Any:
    """Write powers of two of all scores, at most 1, over each row's sum of them."""
    rows = (*a.batch, a.blocks, a.block)
    columns = (a.padded_keys // a.lanes, a.lanes)
    largest = reduced_rows(LARGEST, rows, columns, lambda *at: scores[at], LOWEST, tirx.max)
    powers = numbers_of_rows(
        POWERS, (*rows, a.padded_keys), lambda *at: tirx.exp2(scores[at] - largest[at[:-1]])
    )
    sums = reduced_rows(SUM, rows, columns, lambda *at: powers[at], 0.0, operator.add)

    def inverse(*at: Any) -> Any:
        total = tirx.max(sums[at], T.float32(_SMALLEST_SUM)) if a.zero_rows else sums[at]
        return T.float32(1) / total

    inverses = numbers_of_rows(INVERSE, rows, inverse)
    return numbers_of_rows(
        SHARES, (*rows, a.padded_keys), lambda *at: powers[at] * inverses[at[:-1]]
    )


def _write(a: Attention, shares: Any, values: Any, out: Any) -> None:
    rows = (*a.batch, a.blocks, a.block)
    weighted = _buffer(WEIGHTED, *rows, a.padded_outputs)
    with T.grid(*rows, a.padded_outputs, a.keys) as loops:
        with T.sblock(WEIGHTED):
            b, c, i, r, d, t = axes("SSSSSR", "b c i r d t", loops)
            with T.init():
                T.buffer_store(weighted, T.float32(0), [b, c, i, r, d])
            product = shares[b, c, i, r, t] * values[b, c, t, d]
            T.buffer_store(weighted, weighted[b, c, i, r, d] + product, [b, c, i, r, d])
    with T.grid(*rows, a.outputs) as loops:
        with T.sblock(WRITTEN):
            b, c, i, r, d = axes("SSSSS", "b c i r d", loops)
            place = a.out.at(b, c, _row(a, i, r), d)
            T.buffer_store(out, weighted[b, c, i, r, d], [place])
