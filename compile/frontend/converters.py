"""Operators of PyTorch as Relax has them: what TVM's own importer lacks or imports otherwise.

Each converter gets a call in the graph of a `torch.export` program and TVM's importer, and returns
what stands for the call's result. It reads arguments by the names of the operator's schema, and
computes in the type that PyTorch says the result has.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from tvm import relax

Converter = Callable[[fx.Node, Any], Any]


class NotConverted(ValueError):
    """An operator is used in a way that has no counterpart; the message says which."""


def arguments(node: fx.Node) -> dict[str, Any]:
    """List the arguments of a call by the names of the operator's schema, defaults included."""
    given = iter(node.args)
    found = {}
    for argument in node.target._schema.arguments:  # type: ignore[union-attr]
        default = argument.default_value if argument.has_default_value() else None
        placed = default if argument.kwarg_only else next(given, default)
        found[argument.name] = node.kwargs.get(argument.name, placed)
    return found


def type_of(node: Any) -> str:
    """Name the type of what a node stands for, as TVM does."""
    return str(node.meta["val"].dtype).removeprefix("torch.")


def cast(value: Any, dtype: str, importer: Any) -> Any:
    """Give a tensor in a type, or a constant of a number."""
    if not isinstance(value, relax.Expr):
        return relax.const(value, dtype)
    if str(value.ty.dtype) == dtype:
        return value
    return importer.block_builder.emit(relax.op.astype(value, dtype))


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


def _convolution(node: fx.Node, importer: Any) -> Any:
    given = arguments(node)
    data, weight = importer.env[given["input"]], importer.env[given["weight"]]
    rank = len(given["input"].meta["val"].shape) - 2
    if rank not in (1, 2, 3):
        raise NotConverted(f"a convolution over {rank} axes")
    spatial = "DHW"[3 - rank :] if rank != 1 else "W"
    options = {name: [int(v) for v in given[name]] for name in ("stride", "padding", "dilation")}
    wide = {name: v * rank if len(v) == 1 else v for name, v in options.items()}
    fields: dict[str, Any] = {
        "strides": wide["stride"], "padding": wide["padding"], "dilation": wide["dilation"],
        "groups": int(given["groups"]), "data_layout": f"NC{spatial}",
        "kernel_layout": f"{'IO' if given['transposed'] else 'OI'}{spatial}",
        "out_dtype": type_of(node),
    }  # fmt: skip
    name = f"conv{rank}d"
    if given["transposed"]:
        name += "_transpose"
        fields["output_padding"] = [int(v) for v in given["output_padding"]]
    result = importer.block_builder.emit(getattr(relax.op.nn, name)(data, weight, **fields))
    if given["bias"] is None:
        return result
    bias = relax.op.reshape(importer.env[given["bias"]], (1, -1, *([1] * rank)))
    return importer.block_builder.emit(relax.op.add(result, bias))


def _product(node: fx.Node, importer: Any) -> Any:
    left, right = _pair(node)
    return importer.block_builder.emit(
        relax.op.matmul(importer.env[left], importer.env[right], out_dtype=type_of(node))
    )


def _sum_with_product(node: fx.Node, importer: Any) -> Any:
    added, left, right = list(arguments(node).values())[:3]
    alpha, beta, dtype = arguments(node)["alpha"], arguments(node)["beta"], type_of(node)
    emit = importer.block_builder.emit
    result = emit(relax.op.matmul(importer.env[left], importer.env[right], out_dtype=dtype))
    if alpha != 1:
        result = emit(relax.op.multiply(result, relax.const(alpha, dtype)))
    if beta == 0:
        return result
    summand = importer.env[added]
    if beta != 1:
        summand = emit(relax.op.multiply(summand, relax.const(beta, dtype)))
    return emit(relax.op.add(summand, result))


def _layer_norm(node: fx.Node, importer: Any) -> Any:
    """Normalise over the last axes as over one: TOPI normalises over one axis alone."""
    given, emit = arguments(node), importer.block_builder.emit
    data, extents = importer.env[given["input"]], [int(v) for v in given["normalized_shape"]]
    shape, size = [int(v) for v in given["input"].meta["val"].shape], math.prod(extents)
    dtype = type_of(given["input"])

    def row(value: Any, fill: float) -> Any:
        if value is None:
            return emit(relax.op.full([size], relax.const(fill, dtype)))
        tensor = importer.env[value]
        return tensor if len(extents) == 1 else emit(relax.op.reshape(tensor, (size,)))

    if len(extents) > 1:
        data = emit(relax.op.reshape(data, (*shape[: -len(extents)], size)))
    scale, shift = row(given["weight"], 1.0), row(given["bias"], 0.0)
    normal = emit(relax.op.nn.layer_norm(data, scale, shift, axes=[-1], epsilon=given["eps"]))
    result = normal if len(extents) == 1 else emit(relax.op.reshape(normal, shape))
    # Mean and deviation, which only training reads, are not there.
    return (result,)


def _average_pool(node: fx.Node, importer: Any) -> Any:
    given = arguments(node)
    divisor = given["divisor_override"]
    if divisor is None:
        return importer._avg_pool2d(node)
    if given["ceil_mode"]:
        raise NotConverted("divisor_override together with ceil_mode")
    wide = [[int(v) for v in given[k]] or [int(v) for v in given["kernel_size"]]
            for k in ("kernel_size", "stride", "padding")]  # fmt: skip
    kernel, stride, padding = (v * 2 if len(v) == 1 else v for v in wide)
    mean = importer._avg_pool2d_impl(
        importer.env[given["self"]], kernel, stride, padding or [0, 0], False, True
    )
    scale = relax.const(math.prod(kernel) / divisor, type_of(node))
    return importer.block_builder.emit(relax.op.multiply(mean, scale))


def _refuse_indices(node: fx.Node) -> None:
    if any(user.args[1] == 1 and user.users for user in node.users):
        raise NotConverted("its indices are read; only its values can be computed")


def _pool_without_indices(node: fx.Node, importer: Any) -> Any:
    _refuse_indices(node)
    return importer._max_pool2d_with_indices(node)


def _reduction(reduce: Callable[..., Any]) -> Converter:
    def convert(node: fx.Node, importer: Any) -> Any:
        given = arguments(node)
        axes = given["dim"] if isinstance(given["dim"], Sequence) else [given["dim"]]
        data = cast(importer.env[given["self"]], type_of(node), importer)
        return importer.block_builder.emit(
            reduce(data, list(axes) or None, keepdims=bool(given["keepdim"]))
        )

    return convert


def _extreme_of_axis(best: Callable[..., Any], where: Callable[..., Any]) -> Converter:
    """Convert a maximum or minimum along an axis, with the place where it stands."""

    def convert(node: fx.Node, importer: Any) -> Any:
        given, emit = arguments(node), importer.block_builder.emit
        data, axis, keep = importer.env[given["self"]], int(given["dim"]), bool(given["keepdim"])
        place = emit(relax.op.astype(where(data, axis, keep), "int64"))
        return emit(best(data, [axis], keepdims=keep)), place

    return convert


def _sorted(node: fx.Node, importer: Any) -> Any:
    given = arguments(node)
    return _in_order(node, importer, int(given["dim"]), bool(given["descending"]))


def _in_order(node: fx.Node, importer: Any, axis: int, descending: bool) -> tuple[Any, Any]:
    emit, data = importer.block_builder.emit, importer.env[node.args[0]]
    order = emit(relax.op.argsort(data, axis, descending, dtype="int64"))
    return emit(relax.op.gather_elements(data, order, axis=axis)), order


def _ranked(node: fx.Node, importer: Any) -> Any:
    """Convert `kthvalue` and `median` along an axis: one element of the sorted ones."""
    given, emit = arguments(node), importer.block_builder.emit
    axis, extents = int(given["dim"]), node.args[0].meta["val"].shape  # type: ignore[union-attr]
    rank = int(given.get("k", (extents[axis] + 1) // 2)) - 1
    both = _in_order(node, importer, axis, descending=False)
    found = [emit(relax.op.take(part, relax.const([rank], "int64"), axis=axis)) for part in both]
    return tuple(part if given["keepdim"] else emit(relax.op.squeeze(part, [axis]))
                 for part in found)  # fmt: skip


def _middle(node: fx.Node, importer: Any) -> Any:
    """Convert the median of all elements."""
    size, emit = node.args[0].meta["val"].numel(), importer.block_builder.emit  # type: ignore[union-attr]
    flat = emit(relax.op.reshape(importer.env[node.args[0]], (size,)))
    order = emit(relax.op.argsort(flat, 0, dtype="int64"))
    place = emit(relax.op.take(order, relax.const((size - 1) // 2, "int64"), axis=0))
    return emit(relax.op.take(flat, place, axis=0))


def _top(node: fx.Node, importer: Any) -> Any:
    given, emit = arguments(node), importer.block_builder.emit
    axis = int(given["dim"])
    both = _in_order(node, importer, axis, bool(given["largest"]))
    return tuple(
        emit(relax.op.strided_slice(part, [axis], [0], [int(given["k"])])) for part in both
    )


def _running(scan: Callable[..., Any]) -> Converter:
    def convert(node: fx.Node, importer: Any) -> Any:
        given, dtype = arguments(node), type_of(node)
        data = cast(importer.env[given["self"]], dtype, importer)
        return importer.block_builder.emit(scan(data, int(given["dim"]), dtype))

    return convert


def _bucket(node: fx.Node, importer: Any) -> Any:
    """Count the boundaries below each element; all of them are below NaN."""
    given, emit = arguments(node), importer.block_builder.emit
    row = emit(relax.op.expand_dims(importer.env[given["self"]], [-1 % (1 + len(
        given["self"].meta["val"].shape))]))  # fmt: skip
    reaches = relax.op.less if given["right"] else relax.op.less_equal
    above = relax.op.logical_not(reaches(row, importer.env[given["boundaries"]]))
    return emit(relax.op.sum(relax.op.astype(above, type_of(node)), [-1]))


def _adaptive_max_pool(node: fx.Node, importer: Any) -> Any:
    """Take the largest of each window, rows first: windows may differ in size and overlap."""
    _refuse_indices(node)
    given, emit = arguments(node), importer.block_builder.emit
    data, shape = importer.env[given["self"]], given["self"].meta["val"].shape
    for axis, wanted in zip((-2, -1), given["output_size"], strict=True):
        size, place = int(shape[axis]), len(shape) + axis
        windows = [(i * size // wanted, -(-(i + 1) * size // wanted)) for i in range(wanted)]
        largest = [
            emit(relax.op.max(emit(relax.op.strided_slice(data, [place], [a], [b])), [place], True))
            for a, b in windows
        ]
        data = emit(relax.op.concat(largest, place))
    return (data,)


def _choice(node: fx.Node, importer: Any) -> Any:
    condition, *ways = (importer.env[a] if isinstance(a, fx.Node) else a for a in node.args)
    both = [cast(way, type_of(node), importer) for way in ways]
    return importer.block_builder.emit(relax.op.where(condition, *both))


def _scattered(node: fx.Node, importer: Any) -> Any:
    data, axis, index, added = (importer.env.get(a, a) for a in arguments(node).values())
    return importer.block_builder.emit(
        relax.op.scatter_elements(data, index, added, axis=axis, reduction="add")
    )


def _trilinear(node: fx.Node, importer: Any) -> Any:
    given, emit = arguments(node), importer.block_builder.emit
    factors = [
        emit(relax.op.expand_dims(importer.env[given[f"i{k}"]], sorted(given[f"expand{k}"])))
        if given[f"expand{k}"] else importer.env[given[f"i{k}"]]
        for k in (1, 2, 3)
    ]  # fmt: skip
    product = emit(relax.op.multiply(relax.op.multiply(factors[0], factors[1]), factors[2]))
    axes = list(given["sumdim"])
    return emit(relax.op.sum(product, axes)) if axes else product


def _condition(node: fx.Node, importer: Any) -> Any:
    """Compute both ways and choose: nothing in a program has an effect beside its answer."""
    chosen, ways, operands = importer.env[node.args[0]], node.args[1:3], node.args[3]
    outer, answers = importer.env, []
    given = [outer[operand] if isinstance(operand, fx.Node) else operand for operand in operands]  # type: ignore[union-attr]
    for way in ways:
        graph = outer[way]
        holders = (n for n in graph.graph.nodes if n.op == "placeholder")
        importer.env = dict(zip(holders, given, strict=True))
        answers.append(
            importer._translate_fx_graph(graph, graph.graph.nodes, {}, set(importer.convert_map))
        )
    importer.env = outer
    return tuple(importer.block_builder.emit(relax.op.where(chosen, *both))
                 for both in zip(*answers, strict=True))  # fmt: skip


def _axis_more(node: fx.Node, importer: Any) -> Any:
    given, rank = arguments(node), len(node.meta["val"].shape)
    data = importer.env[given["self"]]
    return importer.block_builder.emit(relax.op.expand_dims(data, [int(given["dim"]) % rank]))


def _axes_less(node: fx.Node, importer: Any) -> Any:
    """Drop axes of one element; counted from the end, they crash TVM's choice of layouts."""
    shape = [int(extent) for extent in node.meta["val"].shape]
    return importer.block_builder.emit(relax.op.reshape(importer.env[node.args[0]], shape))


def _item(node: fx.Node, importer: Any) -> Any:
    """Take a part of what a converter gave, or of what TVM's importer made."""
    whole, place = importer.env[node.args[0]], node.args[1]
    if isinstance(whole, tuple):
        return operator.getitem(whole, place)  # type: ignore[call-overload]
    return importer._getitem(node)


def _named(names: str, converter: Converter) -> dict[str, Converter]:
    return dict.fromkeys(names.split(), converter)


#: By the names that PyTorch gives its operators' overloads.
CONVERTERS: dict[str, Converter] = {
    **_named("add.Tensor add.Scalar", _arithmetic(relax.op.add)),
    **_named("sub.Tensor sub.Scalar", _arithmetic(relax.op.subtract)),
    **_named("mul.Tensor mul.Scalar", _arithmetic(relax.op.multiply)),
    **_named("remainder.Tensor remainder.Scalar", _arithmetic(relax.op.floor_mod)),
    **_named("fmod.Tensor fmod.Scalar", _arithmetic(relax.op.mod)),
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
    **_named("div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode", _division),
    **_named("pow.Tensor_Scalar pow.Tensor_Tensor", _power),
    "elu.default": _elu,
    "convolution.default": _convolution,
    **_named("mm.default bmm.default", _product),
    **_named("addmm.default baddbmm.default", _sum_with_product),
    "native_layer_norm.default": _layer_norm,
    "avg_pool2d.default": _average_pool,
    "max_pool2d_with_indices.default": _pool_without_indices,
    "amax.default": _reduction(relax.op.max),
    "amin.default": _reduction(relax.op.min),
    "prod.dim_int": _reduction(relax.op.prod),
    "max.dim": _extreme_of_axis(relax.op.max, relax.op.argmax),
    "min.dim": _extreme_of_axis(relax.op.min, relax.op.argmin),
    **_named("sort.default", _sorted),
    **_named("kthvalue.default median.dim", _ranked),
    "median.default": _middle,
    "topk.default": _top,
    "cumsum.default": _running(relax.op.cumsum),
    "cumprod.default": _running(relax.op.cumprod),
    "scatter_add.default": _scattered,
    "_trilinear.default": _trilinear,
    "unsqueeze.default": _axis_more,
    **_named("squeeze.dim squeeze.dims squeeze.default", _axes_less),
    **_named("where.default where.self where.ScalarOther where.ScalarSelf where.Scalar", _choice),
    "bucketize.Tensor": _bucket,
    "adaptive_max_pool2d.default": _adaptive_max_pool,
    "cond": _condition,
    "getitem": _item,
}  # fmt: skip
