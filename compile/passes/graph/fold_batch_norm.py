"""Batch norm disappears into the convolution before it.

Before::

    x -> conv2d(W) (-> add(b)) -> batch_norm(gamma, beta, mean, variance) -> relu

After::

    x -> conv2d(W * gamma / sqrt(variance + eps)) -> add(beta - mean * gamma / sqrt(...)) -> relu

A batch norm that follows no convolution becomes a product and a sum with constants. Transposed
constants (a linear layer's weight) and ranges (an index of channels) are evaluated on the way.
TVM's own `FoldBatchnormToConv2D` does the first of these, but leaves the arithmetic to
`FoldConstant`, which compiles a kernel for every product: 38 s for a ShuffleNet, where this takes a
fraction of one.
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
    count_uses,
    evaluated,
    operator,
    rewrite,
    shape_of,
    substitute,
)


def fold_batch_norm(module: tvm.IRModule) -> tvm.IRModule:
    """Fold batch norm into the convolutions; see the module's docstring."""
    uses = count_uses(module)
    definitions = dict(bindings_of(module))

    def replace(builder: relax.BlockBuilder, _: relax.Var, value: Any, current: Current) -> Any:
        if operator(value) == "relax.nn.batch_norm":
            return _Normalised(_normalise(builder, value, definitions, uses, current))
        if isinstance(value, relax.TupleGetItem):
            of_norm = current(value.tuple_value)
            if isinstance(of_norm, _Normalised):
                return of_norm.tensor
        return evaluated(substitute(value, current))

    return rewrite(module, replace)


class _Normalised:
    """Stands for batch norm's tuple, of which inference reads only the first field."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor


def _normalise(
    builder: relax.BlockBuilder,
    norm: Any,
    definitions: dict[relax.Var, Any],
    uses: dict[relax.Var, int],
    current: Current,
) -> Any:
    data, *statistics = norm.args
    gamma, beta, mean, variance = (_required_constant(s) for s in statistics)
    scale = (gamma if norm.attrs.scale else np.ones_like(gamma)) / np.sqrt(
        variance.astype(np.float64) + norm.attrs.epsilon
    )
    shift = (beta if norm.attrs.center else np.zeros_like(beta)) - mean * scale
    axis = int(norm.attrs.axis)
    rank = len(shape_of(norm.args[0]) or ())
    along_axis = tuple(-1 if i == axis else 1 for i in range(rank))
    found = _convolution_before(data, definitions, uses) if axis == 1 else None
    if found is not None:
        convolution, bias = found
        weight = constant_of(convolution.args[1])
        assert weight is not None
        scaled = _like(weight, weight * scale.reshape(-1, 1, 1, 1))
        inputs = [substitute(convolution.args[0], current), scaled]
        product = builder.emit(tvm.ir.Call(convolution.op, inputs, convolution.attrs))
        return builder.emit(relax.op.add(product, _along(weight, bias * scale + shift, along_axis)))
    product = builder.emit(relax.op.multiply(current(data), _along(gamma, scale, along_axis)))
    return builder.emit(relax.op.add(product, _along(gamma, shift, along_axis)))


def _convolution_before(
    data: Any, definitions: dict[relax.Var, Any], uses: dict[relax.Var, int]
) -> tuple[Any, Array] | None:
    """Find the convolution that only this batch norm reads, and the bias between the two."""
    value: Any = None
    if isinstance(data, relax.Var) and uses[data] == 1:
        value = definitions.get(data)
    bias = np.zeros(1)
    if operator(value) == "relax.add":
        shape, (left, right) = shape_of(value), value.args
        left, right = (right, left) if constant_of(left) is not None else (left, right)
        added = constant_of(evaluated(definitions.get(right, right)))
        if added is None or shape is None or shape_of(left) != shape:
            return None
        if added.size not in (1, shape[1]) or added.shape != (1, added.size, 1, 1):
            return None
        bias = added.reshape(-1)
        value = definitions.get(left) if uses.get(left) == 1 else None
    if operator(value) != "relax.nn.conv2d" or constant_of(value.args[1]) is None:
        return None
    return value, bias


def _along(like: Array, values: Array, shape: tuple[int, ...]) -> Any:
    return _like(like, values.reshape(shape))


def _like(like: Array, values: Array) -> Any:
    return constant(values.astype(like.dtype))


def _required_constant(expr: Any) -> Array:
    value = constant_of(expr)
    if value is None:
        raise ValueError("batch norm's statistics are not constants of the program")
    return value
