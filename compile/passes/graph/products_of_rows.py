"""Linear layers over tokens are products of rows, and what follows them is computed on rows.

Before::

    x[4,256,64] -> matmul(W[64,128] broadcast to [4,64,128]) -> add(b) -> gelu -> reshape -> matmul
    x[1,197,64] -> reshape[197,64] -> matmul(W) -> add(b) -> reshape[1,197,64] -> add(y[1,197,64])

After::

    x -> reshape[1024,64] -> matmul(W) -> add(b) -> gelu -> matmul
    x -> reshape[197,64] -> matmul(W) -> add(b) -> add(y -> reshape[197,64]) -> reshape[1,197,64]

So they are kernels of ours with their epilogues. Another shape of the same elements costs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Array,
    Current,
    bindings_of,
    constant,
    constant_of,
    operator,
    rewrite,
    shape_of,
    substitute,
)
from shuffledeploy.compiler.passes.graph.channel_views import BINARY, ELEMENTWISE
from shuffledeploy.compiler.passes.graph.sites import reshaped

# Axes of a tensor of rows.
_OF_ROWS = 2


def products_of_rows(module: tvm.IRModule) -> tvm.IRModule:
    """Give products with constants, and what follows them, two axes; see the module's docstring."""
    if not any(operator(value) == "relax.matmul" for _, value in bindings_of(module)):
        return module
    rows = _Rows(dict(bindings_of(module)))
    return rewrite(module, rows.replaced)


class _Rows:
    """Knows which variables are products in another shape, and the rows that stand for these."""

    def __init__(self, values: dict[relax.Var, Any]) -> None:
        self.values = values
        #: By variable of the old function: the same elements as rows, in the new one.
        self.rows: dict[relax.Var, relax.Var] = {}

    def replaced(
        self, builder: relax.BlockBuilder, variable: relax.Var, value: Any, current: Current
    ) -> Any:
        """Write what a variable is bound to on rows, where it can be; for `rewrite`."""
        name, shape = operator(value), shape_of(value) if operator(value) else None
        if not shape:
            return None
        if name == "relax.broadcast_to" and shape_of(value.args[0]) == shape:
            return self._same(variable, value.args[0], current)
        if name == "relax.reshape" and value.args[0] in self.rows:
            return self._reshaped(variable, value.args[0], shape)
        new = None
        if name == "relax.matmul":
            new = self._product(builder, value, current)
        elif name in ELEMENTWISE or name in BINARY:
            new = self._elementwise(builder, value, shape, current)
        if new is None:
            return None
        self.rows[variable] = builder.emit(new)
        return _in_shape(self.rows[variable], shape)

    def _same(self, variable: relax.Var, source: Any, current: Current) -> Any:
        if source in self.rows:
            self.rows[variable] = self.rows[source]
        return current(source) if isinstance(source, relax.Var) else source

    def _reshaped(self, variable: relax.Var, source: Any, shape: tuple[int, ...]) -> Any:
        rows = self.rows[source]
        if shape[-1] == (shape_of(rows) or ())[-1]:
            self.rows[variable] = rows
        return _in_shape(rows, shape)

    def _product(self, builder: relax.BlockBuilder, value: Any, current: Current) -> Any:
        weight = self._weight(value.args[1])
        left = shape_of(value.args[0])
        if weight is None or left is None or len(left) < _OF_ROWS:
            return None
        rows = self._as_rows(builder, value.args[0], current)
        return relax.op.matmul(rows, constant(weight), value.attrs.out_dtype)

    def _weight(self, expr: Any) -> Array | None:
        """Read the one matrix that all images are multiplied with; ``None`` if there is none."""
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        if operator(value) == "relax.broadcast_to":
            assert value is not None
            expr = value.args[0]
        matrix = constant_of(expr)
        if matrix is None or matrix.ndim < _OF_ROWS or np.prod(matrix.shape[:-2]) != 1:
            return None
        return matrix.reshape(matrix.shape[-2:])

    def _as_rows(self, builder: relax.BlockBuilder, expr: Any, current: Current) -> Any:
        if expr in self.rows:
            return self.rows[expr]
        shape = shape_of(expr) or ()
        tensor = substitute(expr, current)
        return reshaped(builder, tensor, (int(np.prod(shape[:-1])), shape[-1]))

    def _elementwise(
        self, builder: relax.BlockBuilder, value: Any, shape: tuple[int, ...], current: Current
    ) -> Any:
        """Write an operation on rows, where rows are among its operands and all others fit them."""
        tensors = [a for a in value.args if isinstance(a, relax.Var)]
        constants = [constant_of(a) for a in value.args]
        if not any(t in self.rows for t in tensors) or any(shape_of(t) != shape for t in tensors):
            return None
        if not all(c is None or c.size == (c.shape[-1] if c.ndim else 1) for c in constants):
            return None
        arguments = [
            self._as_rows(builder, a, current)
            if isinstance(a, relax.Var)
            else (a if array is None else constant(array.reshape(-1) if array.ndim else array))
            for a, array in zip(value.args, constants, strict=True)
        ]
        return tvm.ir.Call(value.op, arguments, value.attrs)


def _in_shape(rows: relax.Var, shape: tuple[int, ...]) -> Any:
    return rows if shape_of(rows) == shape else relax.op.reshape(rows, shape)
