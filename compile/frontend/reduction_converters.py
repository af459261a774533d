"""Reductions, sorting and running sums as Relax has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx
from tvm import relax

from shuffledeploy.compiler.frontend.call_arguments import (
    Converter,
    arguments,
    cast,
    named,
    type_of,
)


def _variance(node: fx.Node, importer: Any) -> Any:
    """Convert `var_mean`, and `var`, which is the first of its results."""
    given, emit = arguments(node), importer.block_builder.emit
    data, extents = importer.env[given["self"]], given["self"].meta["val"].shape
    axes = [int(axis) % len(extents) for axis in given["dim"] or range(len(extents))]
    correction = 1 if given["correction"] is None else given["correction"]
    mean = emit(relax.op.mean(data, axes, keepdims=True))
    apart = emit(relax.op.square(relax.op.subtract(data, mean)))
    count = math.prod(int(extents[axis]) for axis in axes) - correction
    total = emit(relax.op.sum(apart, axes, keepdims=bool(given["keepdim"])))
    size = relax.const(float(count), str(total.ty.dtype))
    variance = emit(relax.op.divide(total, size))
    if not isinstance(node.meta["val"], list | tuple):
        return variance
    return variance, emit(relax.op.mean(data, axes, keepdims=bool(given["keepdim"])))


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


REDUCTIONS: dict[str, Converter] = {
    **named("var.correction var_mean.correction", _variance),
    "amax.default": _reduction(relax.op.max),
    "amin.default": _reduction(relax.op.min),
    "prod.dim_int": _reduction(relax.op.prod),
    "max.dim": _extreme_of_axis(relax.op.max, relax.op.argmax),
    "min.dim": _extreme_of_axis(relax.op.min, relax.op.argmin),
    **named("sort.default", _sorted),
    **named("kthvalue.default median.dim", _ranked),
    "median.default": _middle,
    "topk.default": _top,
    "cumsum.default": _running(relax.op.cumsum),
    "cumprod.default": _running(relax.op.cumprod),
    "bucketize.Tensor": _bucket,
}  # fmt: skip
