"""Activations go channels last, so that a pointwise convolution is a product of rows and weights.

Before::

    x[NCHW] -> conv2d[NCHW] -> take(axis=1) -> conv2d[NCHW] -> mean(2, 3)

After::

    x[NCHW] -> permute -> conv2d[NHWC] -> take(axis=3) -> conv2d[NHWC] -> mean(1, 2)

`relax.transform.ConvertLayout` does the work; it has no rule for `take` and wraps it in a pair of
transposes, which are taken out here. Rows over channels suit the many small grouped products of a
ShuffleNet: measured on one core, the 14x14 product ran at 8.5 G multiply-adds/s as a grouped
convolution over channel planes and at 55 as rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from compile.passes.data_movement import CHANNEL_AXIS
from compile.passes.graph import (
    bindings_of,
    constant_of,
    operator,
    rebuild,
    shape_of,
    substitute,
)

TO_CHANNELS_LAST = [0, 2, 3, 1]
TO_CHANNELS_FIRST = [0, 3, 1, 2]
LAST_AXIS = 3


def choose_layouts(module: tvm.IRModule) -> tvm.IRModule:
    """Convert convolutions and what lies between them to NHWC, weights to HWIO."""
    convert = relax.transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]})
    module = _move_take_channels_last(convert(module))
    return _transpose_constants(relax.transform.CanonicalizeBindings()(module))


def _axes(expr: Any) -> list[int] | None:
    if operator(expr) != "relax.permute_dims" or expr.attrs.axes is None:
        return None
    return [int(axis) for axis in expr.attrs.axes]


def _move_take_channels_last(module: tvm.IRModule) -> tvm.IRModule:
    definitions = dict(bindings_of(module))
    replaced: dict[relax.Var, Any] = {}

    def current(variable: relax.Var) -> Any:
        return replaced.get(variable, variable)

    def taken_channels_last(value: Any) -> Any:
        """Match permute(take(permute(x), axis=1)) from and to NHWC."""
        if _axes(value) != TO_CHANNELS_LAST:
            return None
        take = definitions.get(value.args[0])
        if operator(take) != "relax.take" or take.attrs.axis != CHANNEL_AXIS:
            return None
        first = definitions.get(take.args[0])
        if _axes(first) != TO_CHANNELS_FIRST:
            return None
        return relax.op.take(current(first.args[0]), take.args[1], axis=LAST_AXIS)

    def emit(builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        new = taken_channels_last(value)
        replaced[variable] = builder.emit(substitute(value, current) if new is None else new)

    return rebuild(module, emit, lambda _, result: substitute(result, current))


def _transpose_constants(module: tvm.IRModule) -> tvm.IRModule:
    replaced: dict[relax.Var, Any] = {}

    def current(variable: relax.Var) -> Any:
        return replaced.get(variable, variable)

    def emit(builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        new = substitute(value, current)
        constant = constant_of(new.args[0]) if _axes(new) is not None else None
        if constant is not None:
            transposed = np.ascontiguousarray(np.transpose(constant, _axes(new)))
            replaced[variable] = relax.const(transposed)
        elif _axes(new) is not None and _only_moves_unit_extents(new):
            replaced[variable] = builder.emit(relax.op.reshape(new.args[0], shape_of(value)))
        else:
            replaced[variable] = builder.emit(new)

    return rebuild(module, emit, lambda _, result: substitute(result, current))


def _only_moves_unit_extents(permute: Any) -> bool:
    """Whether a transpose leaves the data where it is (all but one moved extent is 1)."""
    shape, axes = shape_of(permute.args[0]), _axes(permute)
    if shape is None or axes is None:
        return False
    moved = [axis for axis in axes if shape[axis] != 1]
    return moved == sorted(moved)
