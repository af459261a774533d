"""Arithmetic, comparisons and choices as Relax has them, in the type that PyTorch computes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from tvm import relax

from shuffledeploy.compiler.frontend.call_arguments import (
    Converter,
    arguments,
    cast,
    named,
    type_of,
)


def _common_type(*values: Any) -> str:
    metas = [v.meta["val"] if isinstance(v, fx.Node) else v for v in values]
    first = metas[0]
    dtype = torch.result_type(first, metas[1])
    return str(dtype).removeprefix("torch.")


def _pair(node: fx.Node) -> tuple[Any, Any]:
    first, second = list(arguments(node).values())[:2]
    return first, second


def _computed(
    emit: Callable[[Any, Any], Any], node: fx.Node, importer: Any, dtype: str, *values: Any
) -> Any:
    """Emit an operation of two values in a type; one of truth values goes through integers."""
    inside = "int8" if dtype == "bool" else dtype
    both = (cast(importer.env[v] if isinstance(v, fx.Node) else v, inside, importer)
            for v in values)  # fmt: skip
    result = importer.block_builder.emit(emit(*both))
    return cast(result, type_of(node), importer) if dtype == "bool" else result


def _arithmetic(emit: Callable[[Any, Any], Any]) -> Converter:
    """Convert an operation whose operands take the type of its result."""

    def convert(node: fx.Node, importer: Any) -> Any:
        first, second = _pair(node)
        alpha = arguments(node).get("alpha", 1)
        if alpha == 1:
            return _computed(emit, node, importer, type_of(node), first, second)
        scaled = cast(importer.env.get(second, second), type_of(node), importer)
        scaled = importer.block_builder.emit(
            relax.op.multiply(scaled, cast(alpha, type_of(node), importer))
        )
        return importer.block_builder.emit(
            emit(cast(importer.env[first], type_of(node), importer), scaled)
        )

    return convert


def _comparison(emit: Callable[[Any, Any], Any]) -> Converter:
    """Convert an operation whose operands are brought to one type and whose result is a truth."""

    def convert(node: fx.Node, importer: Any) -> Any:
        first, second = _pair(node)
        dtype = _common_type(first, second)
        return _computed(emit, node, importer, dtype, first, second)

    return convert


def _division(node: fx.Node, importer: Any) -> Any:
    (first, second), mode = _pair(node), arguments(node).get("rounding_mode")
    dtype = type_of(node)
    whole = "int" in dtype
    if mode == "floor" and whole:
        return _computed(relax.op.floor_divide, node, importer, dtype, first, second)
    inside = "float64" if whole else dtype
    divided = _computed(relax.op.divide, node, importer, inside, first, second)
    if mode is None:
        return divided
    rounded = relax.op.floor(divided) if mode == "floor" else relax.op.trunc(divided)
    return cast(importer.block_builder.emit(rounded), dtype, importer)


def _power(node: fx.Node, importer: Any) -> Any:
    base, exponent = _pair(node)
    dtype = type_of(node)
    whole = "int" in dtype
    if whole and isinstance(exponent, int) and 0 <= exponent < 64:
        result = relax.op.ones_like(importer.env[base])
        for _ in range(exponent):
            result = importer.block_builder.emit(relax.op.multiply(result, importer.env[base]))
        return result
    inside = "float64" if whole else dtype
    powered = _computed(relax.op.power, node, importer, inside, base, exponent)
    return cast(powered, dtype, importer)


def _elu(node: fx.Node, importer: Any) -> Any:
    given, emit = arguments(node), importer.block_builder.emit
    x = importer.env[node.args[0]]
    alpha, scale, steep = (float(given[k]) for k in ("alpha", "scale", "input_scale"))

    def const(value: float) -> Any:
        return relax.const(value, type_of(node))

    below = relax.op.minimum(x, const(0.0))
    bent = relax.op.subtract(relax.op.exp(relax.op.multiply(below, const(steep))), const(1.0))
    straight = relax.op.multiply(relax.op.maximum(x, const(0.0)), const(scale))
    return emit(relax.op.add(straight, relax.op.multiply(bent, const(alpha * scale))))


def _parametric_relu(node: fx.Node, importer: Any) -> Any:
    """Write it of operations that commute with an order of channels, as a choice does not."""
    x, slope = (importer.env[argument] for argument in node.args)
    zero, emit = relax.const(0.0, type_of(node)), importer.block_builder.emit
    below = emit(relax.op.multiply(emit(relax.op.minimum(x, zero)), slope))
    return emit(relax.op.add(emit(relax.op.maximum(x, zero)), below))


def _choice(node: fx.Node, importer: Any) -> Any:
    condition, *ways = (importer.env[a] if isinstance(a, fx.Node) else a for a in node.args)
    both = [cast(way, type_of(node), importer) for way in ways]
    return importer.block_builder.emit(relax.op.where(condition, *both))


ARITHMETIC: dict[str, Converter] = {
    **named("add.Tensor add.Scalar", _arithmetic(relax.op.add)),
    **named("sub.Tensor sub.Scalar", _arithmetic(relax.op.subtract)),
    **named("mul.Tensor mul.Scalar", _arithmetic(relax.op.multiply)),
    **named("remainder.Tensor remainder.Scalar", _arithmetic(relax.op.floor_mod)),
    **named("fmod.Tensor fmod.Scalar", _arithmetic(relax.op.mod)),
    "maximum.default": _arithmetic(relax.op.maximum),
    "minimum.default": _arithmetic(relax.op.minimum),
    **{
        f"{name}.{kind}": _comparison(emit)
        for kind in ("Tensor", "Scalar")
        for name, emit in (
            ("eq", relax.op.equal), ("ne", relax.op.not_equal), ("lt", relax.op.less),
            ("le", relax.op.less_equal), ("gt", relax.op.greater), ("ge", relax.op.greater_equal),
        )
    },
    **named("div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode", _division),
    **named("pow.Tensor_Scalar pow.Tensor_Tensor", _power),
    "elu.default": _elu,
    "_prelu_kernel.default": _parametric_relu,
    "__lshift__.Scalar": _arithmetic(relax.op.left_shift),
    "__rshift__.Scalar": _arithmetic(relax.op.right_shift),
    **named("where.default where.self where.ScalarOther where.ScalarSelf where.Scalar", _choice),
}  # fmt: skip
