"""Activations go channels last, so that a pointwise convolution is a product of rows and weights.

Before::

    x[NCHW] -> conv2d[NCHW] -> take(axis=1) -> conv2d[NCHW] -> mean(2, 3)

After::

    x[NCHW] -> permute -> conv2d[NHWC] -> take(axis=3) -> conv2d[NHWC] -> mean(1, 2)

`relax.transform.ConvertLayout` does the work; it has no rule for `take`, `clip` and a few more, and
stops there with a transpose on either side. Those are moved behind the operator, where they meet.
Rows over channels suit the many small grouped products of a ShuffleNet: measured on one core, the
14x14 product ran at 8.5 G multiply-adds/s as a grouped convolution over channel planes and at 55 as
rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Current,
    bindings_of,
    constant,
    constant_of,
    operator,
    rewrite,
    shape_of,
    substitute,
)
from shuffledeploy.compiler.passes.graph.channel_views import (
    BINARY,
    ELEMENTWISE,
    SPATIAL_REDUCTIONS,
    keeps_channels,
)
from shuffledeploy.compiler.passes.graph.data_movement import CHANNEL_AXIS, moves_pixels
from shuffledeploy.compiler.passes.graph.pixel_shuffles import shuffled_squares
from shuffledeploy.compiler.passes.graph.reordered_reads import SQUARES_APART

TO_CHANNELS_LAST = [0, 2, 3, 1]
TO_CHANNELS_FIRST = [0, 3, 1, 2]
LAST_AXIS = 3


def choose_layouts(module: tvm.IRModule) -> tvm.IRModule:
    """Convert convolutions and what lies between them to NHWC, weights to HWIO."""
    convert = relax.transform.ConvertLayout({
        "relax.nn.conv2d": ["NHWC", "HWIO"],
        # TVM has code for this layout alone.
        "relax.nn.conv2d_transpose": ["NCHW", "IOHW"],
    })  # fmt: skip
    module = _move_transposes(relax.transform.CanonicalizeBindings()(convert(module)))
    return _transpose_constants(relax.transform.CanonicalizeBindings()(module))


def permutation(expr: Any) -> list[int] | None:
    """Return the axes of a transposition, ``None`` for any other expression."""
    if operator(expr) != "relax.permute_dims" or expr.attrs.axes is None:
        return None
    return [int(axis) for axis in expr.attrs.axes]


def _move_transposes(module: tvm.IRModule) -> tvm.IRModule:
    """Rewrite op(permute(x)) from NHWC as permute(op(x)), and cancel transposes that meet."""
    channels_last: dict[relax.Var, Any] = {}
    definitions = dict(bindings_of(module))
    takes = {v: value for v, value in definitions.items()
             if operator(value) == "relax.take" and moves_pixels(value)}  # fmt: skip

    def _squares_last(builder: relax.BlockBuilder, variable: relax.Var) -> relax.Var | None:
        """Write a pixel shuffle of a tensor in NHWC."""
        source, square = shuffled_squares(variable, definitions.get) or (None, 0)
        if source not in channels_last:
            return None
        images, pixel, tall, wide = shape_of(variable) or (0, 0, 0, 0)
        apart = (images, tall // square, wide // square, square, square, pixel)
        parts = builder.emit(relax.op.reshape(channels_last[source], apart))
        beside = builder.emit(relax.op.permute_dims(parts, list(SQUARES_APART)))
        return builder.emit(relax.op.reshape(beside, (images, tall, wide, pixel)))

    def replace(
        builder: relax.BlockBuilder, variable: relax.Var, value: Any, current: Current
    ) -> Any:
        source = value.args[0] if permutation(value) is not None else None
        if permutation(value) == TO_CHANNELS_LAST and source in channels_last:
            return channels_last[source]
        if permutation(value) == TO_CHANNELS_LAST and source in takes:
            return _taken_last(builder, takes, source, current)
        if permutation(value) == TO_CHANNELS_FIRST:
            channels_last[variable] = substitute(source, current)
        elif (shuffled := _squares_last(builder, variable)) is not None:
            channels_last[variable] = shuffled
            return relax.op.permute_dims(shuffled, TO_CHANNELS_FIRST)
        elif (moved := _in_channels_last(value, channels_last)) is not None:
            if len(shape_of(value) or ()) != len(TO_CHANNELS_FIRST):
                return moved
            channels_last[variable] = builder.emit(moved)
            return relax.op.permute_dims(channels_last[variable], TO_CHANNELS_FIRST)
        return None

    return rewrite(module, replace)


def _taken_last(
    builder: relax.BlockBuilder, takes: Mapping[relax.Var, Any], tensor: Any, current: Current
) -> Any:
    """Transpose a network's input before its rows and columns are taken, not behind."""
    take = takes.get(tensor)
    if take is None:
        return builder.emit(relax.op.permute_dims(current(tensor), TO_CHANNELS_LAST))
    source = _taken_last(builder, takes, take.args[0], current)
    return builder.emit(_taken_of(take, source))


def _taken_of(take: Any, data: Any) -> Any:
    """Write a `take` of a tensor in NHWC."""
    axis = TO_CHANNELS_LAST.index(int(take.attrs.axis))
    return relax.op.take(data, take.args[1], axis=axis, mode=take.attrs.mode)


def _in_channels_last(value: Any, channels_last: dict[relax.Var, Any]) -> Any:
    """Write an operator on its inputs before they were transposed; ``None`` where that fails."""
    name = operator(value)

    def find(expr: Any) -> Any:
        return channels_last.get(expr) if isinstance(expr, relax.Var) else None

    def find_all(exprs: Any) -> list[Any] | None:
        if not any(find(expr) is not None for expr in exprs):
            return None
        found = [find(e) if constant_of(e) is None else _constant_channels_last(e) for e in exprs]
        return None if any(e is None for e in found) else found

    if name == "relax.concat" and isinstance(value.args[0], relax.Tuple):
        fields = find_all(value.args[0].fields)
        if int(value.attrs.axis or 0) == CHANNEL_AXIS and fields is not None:
            return relax.op.concat(fields, axis=LAST_AXIS)
    elif name in BINARY and (sides := find_all(value.args)) is not None:
        return tvm.ir.Call(value.op, sides, value.attrs)
    elif name == "relax.take" and (data := find(value.args[0])) is not None:
        of_channels = value.attrs.axis == CHANNEL_AXIS and constant_of(value.args[1]) is not None
        return _taken_of(value, data) if of_channels or moves_pixels(value) else None
    elif name in ELEMENTWISE and (data := find(value.args[0])) is not None:
        return tvm.ir.Call(value.op, [data, *value.args[1:]], value.attrs)
    elif name in _OVER_PIXELS and (data := find(value.args[0])) is not None:
        return _OVER_PIXELS[name](value, data)
    return None


def _reduction(value: Any, data: Any) -> Any:
    if not keeps_channels(value):
        return None
    reduce = getattr(relax.op, operator(value).removeprefix("relax."))
    return reduce(data, [1, 2], keepdims=bool(value.attrs.keepdims))


def _pool(value: Any, data: Any) -> Any:
    attrs = value.attrs
    if str(attrs.layout) != "NCHW" or str(attrs.out_layout) != "NCHW":
        return None
    pool = getattr(relax.op.nn, operator(value).removeprefix("relax.nn."))
    fields = (attrs.pool_size, attrs.strides, attrs.padding, attrs.dilation)
    lists = [[int(extent) for extent in field] for field in fields]
    flags = bool(attrs.ceil_mode), bool(attrs.count_include_pad)
    return pool(data, *lists, *flags, layout="NHWC")


_OVER_PIXELS = {
    **dict.fromkeys(SPATIAL_REDUCTIONS, _reduction),
    **dict.fromkeys(("relax.nn.max_pool2d", "relax.nn.avg_pool2d"), _pool),
}


def _constant_channels_last(expr: Any) -> Any:
    values = constant_of(expr)
    if values is None or values.ndim > len(TO_CHANNELS_LAST):
        return None
    full = values.reshape((1,) * (len(TO_CHANNELS_LAST) - values.ndim) + values.shape)
    return constant(full.transpose(TO_CHANNELS_LAST))


def _transpose_constants(module: tvm.IRModule) -> tvm.IRModule:
    def replace(_: relax.BlockBuilder, __: relax.Var, value: Any, current: Current) -> Any:
        new = substitute(value, current)
        axes = permutation(new)
        if axes is None:
            return new
        values = constant_of(new.args[0])
        if values is not None:
            return constant(np.transpose(values, axes))
        unmoved = _only_moves_unit_extents(new)
        return relax.op.reshape(new.args[0], shape_of(value)) if unmoved else new

    return rewrite(module, replace)


def _only_moves_unit_extents(permute: Any) -> bool:
    """Whether a transpose leaves the data where it is (all but one moved extent is 1)."""
    shape, axes = shape_of(permute.args[0]), permutation(permute)
    if shape is None or axes is None:
        return False
    moved = [axis for axis in axes if shape[axis] != 1]
    return moved == sorted(moved)
