"""An attention's two products and the softmax between them become one kernel.

Before::

    x -> reshape -> permute -> slice -> multiply(s) ----+
      +-> slice -> permute -> multiply(s) -> matmul <---+
      |                                        +-> softmax -> where(a row of -inf, 0) -+
      +-> slice -----------------------------------------------> matmul <-------------+
                                                                    +-> permute -> reshape -> y

After::

    x -> one kernel that reads queries, keys and values where they lie -> y

Scores need no memory. Numbers that queries, keys or scores are multiplied with become one, which
scores are multiplied with; a tensor may be added to them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import ATTENTION, KIND, LANES
from shuffledeploy.compiler.ir.graph import (
    Array,
    Current,
    bindings_of,
    constant_of,
    operator,
    readers_of,
    rewrite,
    shape_of,
)
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.attention import Attention, primitive_function
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.data_movement import MOVES
from shuffledeploy.compiler.passes.graph.sites import emit_alone, reshaped
from shuffledeploy.compiler.passes.graph.strided_views import (
    factor_of,
    flat_memory,
    in_order,
    strided_batches,
    view_of,
)

# From the condition of `where` back to the scores: is no score of a row above minus infinity?
_ALL_LOWEST = ("logical_not", "astype", "max", "astype", "logical_not", "equal")


def fuse_attention(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Replace attentions by calls of kernels; see the module's docstring.

    Parameters
    ----------
    module : tvm.IRModule
        In float32; layouts are chosen.
    core : Core
        What the kernel's form needs to know of the target.
    """
    finder = _Finder(module)
    lanes, found = core.of(FLOAT).lanes, {}
    for variable, value in finder.values.items():
        attention = finder.attention(variable) if operator(value) == "relax.matmul" else None
        if attention is None:
            continue
        layer = dataclasses.replace(attention.layer, lanes=lanes)
        found[attention.variable] = dataclasses.replace(attention, layer=layer)

    def replace(builder: relax.BlockBuilder, variable: relax.Var, _: Any, current: Current) -> Any:
        attention = found.get(variable)
        return None if attention is None else _called(builder, attention, current)

    return rewrite(module, replace) if found else module


@dataclasses.dataclass(frozen=True)
class _Found:
    """An attention: the variable that it computes, its numbers, and what it reads.

    The finder knows no vectors: its `layer` has one lane.
    """

    variable: relax.Var
    layer: Attention
    sources: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class _Moved:
    """What was computed, moved: the last variable, and each element's flat place in it."""

    variable: relax.Var
    places: Array


@dataclasses.dataclass(frozen=True)
class _Scores:
    """Scores before their softmax.

    `added` is what is added to them, and `shape` that of the sum; `passed` are the variables
    between the product of queries and keys and the softmax.
    """

    product: Any
    factor: float
    added: Any
    shape: tuple[int, ...] | None
    passed: tuple[relax.Var, ...]


def _called(builder: relax.BlockBuilder, found: _Found, current: Current) -> relax.Var:
    layer = found.layer
    attributes = {KIND: ATTENTION, LANES: layer.lanes, "multiply_adds": layer.multiply_adds}
    batch = math.prod(layer.batch)
    name = f"attention_{batch}x{layer.rows}x{layer.keys}x{layer.depth}"
    arguments = flat_memory(builder, found.sources, current)
    function = primitive_function(layer)
    flat = emit_alone(builder, function, name, arguments, (layer.out.size,), attributes)
    shape = shape_of(found.variable)
    assert shape is not None
    return reshaped(builder, flat, shape)


class _Finder:
    """Looks for attentions in one module."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.values: dict[relax.Var, Any] = dict(bindings_of(module))
        self.readers = readers_of(module)

    def attention(self, variable: relax.Var) -> _Found | None:
        """Read the attention whose second product a variable is bound to."""
        product = self.values[variable]
        shares, passed = in_order(product.args[0], self.values)
        softmax = self._softmax(shares)
        scores = None if softmax is None else self._scores(softmax[0])
        if softmax is None or scores is None or str(product.ty.dtype) != FLOAT:
            return None
        inside = {variable, *passed, *softmax[2], *scores.passed}
        if any(r not in inside for v in inside - {variable} for r in self.readers.get(v, ())):
            return None
        return self._strided(variable, scores, softmax[1])

    def _softmax(self, variable: Any) -> tuple[Any, bool, list[relax.Var]] | None:
        """Give what a softmax over the last axis reads, whether rows may be zero, and variables."""
        value: Any = self.values.get(variable)
        if operator(value) == "relax.where":
            condition, zeros, chosen = value.args
            guarded = self._softmax(chosen)
            if guarded is None or guarded[1] or not self._is_zero(zeros):
                return None
            passed = self._all_lowest(condition, guarded[0])
            if passed is None:
                return None
            filled = [zeros] if isinstance(zeros, relax.Var) else []
            return guarded[0], True, [variable, *guarded[2], *passed, *filled]
        if operator(value) != "relax.nn.softmax":
            return None
        rank = len(shape_of(value) or ())
        last = int(value.attrs.axis) % rank == rank - 1
        return (value.args[0], False, [variable]) if last else None

    def _is_zero(self, expr: Any) -> bool:
        value: Any = self.values.get(expr) if isinstance(expr, relax.Var) else expr
        if operator(value) in ("relax.full_like", "relax.full"):
            value = value.args[1]
        elif operator(value) == "relax.zeros_like":
            return True
        number = constant_of(value)
        return number is not None and not number.any()

    def _all_lowest(self, condition: Any, scores: Any) -> list[relax.Var] | None:
        """List the variables by which a condition says that a row of scores is all -inf."""
        passed, expr = [], condition
        for name in _ALL_LOWEST:
            value: Any = self.values.get(expr) if isinstance(expr, relax.Var) else None
            if operator(value) != f"relax.{name}":
                return None
            passed.append(expr)
            rank = len(shape_of(value.args[0]) or ())
            if name == "max" and [int(a) % rank for a in value.attrs.axis] != [rank - 1]:
                return None
            if name == "equal":
                bound = constant_of(value.args[1])
                lowest = bound is not None and bool((bound == -np.inf).all())
                return passed if lowest and value.args[0].same_as(scores) else None
            expr = value.args[0]
        return None

    def _scores(self, scores: Any) -> _Scores | None:
        """Go back from a softmax to the product of queries and keys."""
        factor, added, shape, passed = 1.0, None, None, [scores]
        while True:
            scores, between = in_order(scores, self.values)
            passed += [*between, scores]
            value: Any = self.values.get(scores) if isinstance(scores, relax.Var) else None
            scaled = factor_of(value)
            if operator(value) == "relax.matmul":
                return _Scores(value, factor, added, shape, tuple(passed))
            if scaled is not None:
                scores, factor = scaled[0], factor * scaled[1]
            elif operator(value) == "relax.add" and added is None and factor == 1:
                left, right = value.args
                scores, added = (left, right) if self._leads_on(left) else (right, left)
                shape = shape_of(value)
                if shape_of(scores) != shape:
                    return None
            else:
                return None

    def _leads_on(self, expr: Any) -> bool:
        """Whether a summand is the product of queries and keys, times a number perhaps."""
        behind, _ = in_order(expr, self.values)
        value: Any = self.values.get(behind) if isinstance(behind, relax.Var) else None
        scaled = factor_of(value)
        if scaled is not None:
            return self._leads_on(scaled[0])
        return operator(value) == "relax.matmul"

    def _strided(self, variable: relax.Var, scores: _Scores, zero_rows: bool) -> _Found | None:
        """Find strides of all operands and of what is written, with the same two batch axes."""
        query, key = (view_of(a, self.values) for a in scores.product.args)
        value = view_of(self.values[variable].args[1], self.values)
        views = [query, key, value]
        if scores.added is not None:
            views.append(view_of(scores.added, self.values))
        if any(str(view.source.ty.dtype) != FLOAT for view in views):
            return None
        if any(view.factor != 1 for view in views[2:]):
            return None
        shape, result = shape_of(scores.product) or (), shape_of(variable) or ()
        depth, (rows, keys), outputs = query.elements.shape[-1], shape[-2:], result[-1]
        batch, last = math.prod(shape[:-2]), self._last_move(variable)
        if math.prod(result[:-2]) != batch or value.elements.shape[-2:] != (keys, outputs):
            return None
        matrices = [
            (np.broadcast_to(query.elements, (*shape[:-2], rows, depth)), query.size),
            (np.broadcast_to(key.elements, (*shape[:-2], depth, keys)).swapaxes(-1, -2), key.size),
            (np.broadcast_to(value.elements, (*result[:-2], keys, outputs)), value.size),
            (last.places.reshape(result), last.places.size),
        ]
        if scores.shape is not None:
            matrices.append((np.broadcast_to(views[3].elements, scores.shape), views[3].size))
        found = strided_batches(batch, matrices)
        if found is None:
            return None
        over, (queries, keyed, valued, written, *added) = found
        layer = Attention(
            over, rows, keys, depth, outputs, queries, keyed, valued, written,
            query.factor * key.factor * scores.factor, added[0] if added else None, zero_rows, 1,
        )  # fmt: skip
        return _Found(last.variable, layer, tuple(view.source for view in views))

    def _last_move(self, variable: relax.Var) -> _Moved:
        """Follow what was computed through the moves that alone read it."""
        shape = shape_of(variable) or ()
        elements = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        while True:
            readers = self.readers.get(variable, ())
            reader = readers[0] if len(readers) == 1 else None
            value: Any = self.values.get(reader) if reader is not None else None
            name = operator(value)
            moved = MOVES[name](value, elements) if name in MOVES else None
            if name == "relax.broadcast_to" and elements.shape == shape_of(value):
                moved = elements
            if moved is None or moved.size != elements.size or reader is None:
                break
            variable, elements = reader, moved
        places = np.empty(elements.size, np.int64)
        places[elements.reshape(-1)] = np.arange(elements.size)
        return _Moved(variable, places)
