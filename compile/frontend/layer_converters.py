"""Convolutions, products, norms and pools as Relax has them."""

from __future__ import annotations

import math
from typing import Any

from torch import fx
from tvm import relax

from shuffledeploy.compiler.frontend.call_arguments import (
    Converter,
    NotConverted,
    arguments,
    named,
    type_of,
)


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
    left, right = node.args[:2]
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


def _group_norm(node: fx.Node, importer: Any) -> Any:
    given, emit = arguments(node), importer.block_builder.emit
    shape, dtype = given["input"].meta["val"].shape, type_of(given["input"])
    scale, shift = (
        emit(relax.op.full([int(shape[1])], relax.const(fill, dtype))) if given[name] is None
        else importer.env[given[name]]
        for name, fill in (("weight", 1.0), ("bias", 0.0))
    )  # fmt: skip
    axes = list(range(2, len(shape)))
    normal = relax.op.nn.group_norm(
        importer.env[given["input"]], scale, shift, num_groups=int(given["group"]),
        channel_axis=1, axes=axes, epsilon=given["eps"],
    )  # fmt: skip
    # Mean and deviation, which only training reads, are not there.
    return (emit(normal),)


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


def _pool_of_volume(node: fx.Node, importer: Any) -> Any:
    _refuse_indices(node)
    given = arguments(node)
    fields = [given[k] for k in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")]
    fields[1] = fields[1] or fields[0]
    return (importer._max_pool3d_impl(importer.env[given["self"]], *fields),)


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


LAYERS: dict[str, Converter] = {
    "convolution.default": _convolution,
    **named("mm.default bmm.default", _product),
    **named("addmm.default baddbmm.default", _sum_with_product),
    "native_layer_norm.default": _layer_norm,
    "avg_pool2d.default": _average_pool,
    "max_pool2d_with_indices.default": _pool_without_indices,
    "max_pool3d_with_indices.default": _pool_of_volume,
    "native_group_norm.default": _group_norm,
    "_trilinear.default": _trilinear,
    "adaptive_max_pool2d.default": _adaptive_max_pool,
}  # fmt: skip
