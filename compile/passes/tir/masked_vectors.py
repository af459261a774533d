"""Odd vectors become whole ones, read and written under a mask, on x86 with AVX-512.

Before::

    total = local(20, "float32x14")
    total[0] = x[p:p + 14]
    out[p:p + 14] = max(total[0], 0)

After::

    total = local(20, "float32x16")
    total[0] = masked_load(x[p:p + 16], first 14)
    masked_store(max(total[0], 0), out[p:p + 16], first 14)

LLVM keeps 14 floats in one register, but moves them in pieces of 8, 4 and 2: seven instructions
for each that a mask needs. What lies behind the mask is neither read nor written.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from shuffledeploy.compiler.ir.tir import loads_in, picked, tiles_in
from shuffledeploy.compiler.ir.tvm_edges import has_feature
from shuffledeploy.compiler.kernels.tiling import MASKED_LANES as LANES

_FEATURE = "avx512f"
# Of what lies behind the mask they compute something that is not written.
_FUNCTIONS = tuple(f"tirx.{name}" for name in ("exp", "sigmoid", "tanh", "erf", "sqrt", "fabs"))
_ELEMENTWISE = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min)


class _NotCoveredError(Exception):
    """An odd vector comes of something that is not known here."""


def has_masks(function: tirx.PrimFunc) -> bool:
    """Whether a function is for a core whose vectors of `LANES` floats move under a mask."""
    target = function.attrs["target"] if function.attrs and "target" in function.attrs else None
    if target is None or str(target.kind) != "llvm":
        return False
    return has_feature(_FEATURE, target)


def mask_odd_vectors(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Make the odd vectors of a lowered function whole.

    Returns
    -------
    tirx.PrimFunc
        The function as it was where an odd vector comes of an operation that is not known here.
    """
    tiles = {buffer: _widened(buffer) for buffer in tiles_in(function.body)}
    widening = _Widening(tiles)
    body = widening.statement(function.body)
    replaced = [old for old, new in tiles.items() if not old.same_as(new)]
    # Most kernels have none, and many loads.
    left = replaced and any(load.source.same_as(old) for load in loads_in(body) for old in replaced)
    return function.with_body(body) if widening.covers_all and not left else function


def _widened(buffer: Any) -> Any:
    """Give a buffer for whole vectors where one has odd ones, else the same."""
    lanes = _lanes(buffer)
    if not _odd(lanes):
        return buffer
    shape = [int(extent) for extent in buffer.shape]
    return tirx.decl_buffer(shape, f"float32x{_whole(lanes)}", buffer.name)


class _Widening:
    """Writes a lowered function's statements with whole vectors in the place of odd ones.

    Parameters
    ----------
    tiles : dict
        Each buffer that the function allocates, and what takes its place.
    """

    def __init__(self, tiles: dict[Any, Any]) -> None:
        self.tiles = tiles
        self.covers_all = True

    def statement(self, body: Any) -> Any:
        """Rewrite a statement and all in it."""
        # What is replaced by itself would be visited for nothing: loads change with their stores.
        return structural_map(
            body, [(tirx.BufferStore, self._store), (tirx.AllocBuffer, self._allocation)]
        )

    def _tile(self, buffer: Any) -> Any:
        return next((new for old, new in self.tiles.items() if old.same_as(buffer)), None)

    def _allocation(self, node: tirx.AllocBuffer) -> Any:
        new = self._tile(node.buffer)
        return node if new.same_as(node.buffer) else tirx.AllocBuffer(new, node.annotations)

    def _store(self, node: Any) -> Any:
        lanes = _lanes(node.value)
        if not _odd(lanes):
            return node
        if not str(node.value.ty.dtype).startswith("float32"):
            self.covers_all = False
            return node
        try:
            return self._stored(node, lanes)
        except _NotCoveredError:
            # TVM would turn it into an error of its own.
            self.covers_all = False
            return node

    def _stored(self, node: Any, lanes: int) -> Any:
        value, tile = self._whole(node.value), self._tile(node.buffer)
        if tile is not None:
            if len(node.indices) != 1 or _lanes(node.indices[0]) > 1:
                raise _NotCoveredError
            return tirx.BufferStore(tile, value, node.indices)
        at = _run(node.indices)
        result = tirx.Var("whole", value.ty)
        stores: list[Any] = [tirx.Bind(result, value)]
        for first in range(0, lanes, LANES):
            part = picked([result], range(first, first + LANES))
            if first + LANES <= lanes:
                index = tirx.Ramp(at + first, 1, LANES)
                stores.append(tirx.BufferStore(node.buffer, part, [index]))
                continue
            where = tirx.address_of(tirx.BufferLoad(node.buffer, [at + first]))
            mask = _first(lanes - first)
            call = tirx.call_llvm_intrin("void", "llvm.masked.store", part, where, mask)
            stores.append(tirx.Evaluate(call))
        return tirx.SeqStmt(stores)

    def _whole(self, value: Any) -> Any:
        """Compute a value's odd vector as a whole one."""
        lanes = _lanes(value)
        if isinstance(value, _ELEMENTWISE):
            return type(value)(self._whole(value.a), self._whole(value.b))
        if isinstance(value, tirx.Broadcast):
            return tirx.Broadcast(value.value, _whole(lanes))
        if isinstance(value, tirx.Select):
            condition = value.condition
            if _lanes(condition) > 1:
                condition = self._whole(condition)
            return tirx.Select(
                condition, self._whole(value.true_value), self._whole(value.false_value)
            )
        if isinstance(value, tirx.Shuffle):
            return _unshuffled(value)
        if isinstance(value, tvm.ir.Call) and getattr(value.op, "name", "") in _FUNCTIONS:
            kind = f"float32x{_whole(lanes)}"
            return tirx.call_intrin(kind, value.op.name, *map(self._whole, value.args))
        if isinstance(value, tvm.ir.TensorLoad):
            return self._load(value, lanes)
        raise _NotCoveredError

    def _load(self, value: Any, lanes: int) -> Any:
        tile = self._tile(value.source)
        if not str(value.ty.dtype).startswith("float32"):
            raise _NotCoveredError
        if tile is not None:
            if len(value.indices) != 1 or _lanes(value.indices[0]) > 1:
                raise _NotCoveredError
            return tirx.BufferLoad(tile, value.indices)
        at = _run(value.indices)
        parts: list[Any] = []
        for first in range(0, lanes, LANES):
            if first + LANES <= lanes:
                parts.append(tirx.BufferLoad(value.source, [tirx.Ramp(at + first, 1, LANES)]))
                continue
            where = tirx.address_of(tirx.BufferLoad(value.source, [at + first]))
            mask, behind = _first(lanes - first), tirx.Broadcast(tirx.FloatImm("float32", 0), LANES)
            kind = f"float32x{LANES}"
            parts.append(tirx.call_llvm_intrin(kind, "llvm.masked.load", where, mask, behind))
        return picked(parts, range(_whole(lanes)))


def _unshuffled(value: tirx.Shuffle) -> Any:
    """Take the whole vector of which a shuffle takes the first lanes."""
    numbers = [int(index) for index in value.indices]
    vector = value.vectors[0]
    if len(value.vectors) > 1 or numbers != list(range(len(numbers))):
        raise _NotCoveredError
    if _lanes(vector) != _whole(len(numbers)):
        raise _NotCoveredError
    return vector


def _run(indices: Any) -> Any:
    """Tell where neighbours begin in memory."""
    at = indices[0] if len(indices) == 1 else None
    if not isinstance(at, tirx.Ramp) or int(at.stride) != 1:
        raise _NotCoveredError
    return at.base


def _lanes(value: Any) -> int:
    """Count the lanes of a value or of a buffer's element."""
    return int(tvm.DataType(str(value.ty.dtype)).lanes)


def _odd(lanes: int) -> bool:
    """Whether LLVM would move so many lanes in pieces that are no vectors."""
    return lanes % LANES != 0 if lanes > LANES else lanes.bit_count() > 1


def _whole(lanes: int) -> int:
    return -(-lanes // LANES) * LANES


def _first(count: int) -> Any:
    return tirx.LT(
        tirx.Ramp(tirx.IntImm("int32", 0), 1, LANES),
        tirx.Broadcast(tirx.IntImm("int32", count), LANES),
    )
