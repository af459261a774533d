"""A transposition reads its tensor's channels in the order of a shuffle.

Before::

    x[NHWC] -> take(order, axis=3) -> permute to NCHW

After::

    x[NHWC] -> shuffled_transposition(x, order)

Such a transposition stands where a shuffled tensor is an answer, or where an operator that no
kernel here covers reads it. Alone the shuffle would be a kernel, and a pass over memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, tirx

from shuffledeploy.compiler.ir.attributes import OPERATORS
from shuffledeploy.compiler.ir.graph import (
    Array,
    Current,
    bindings_of,
    constant,
    constant_of,
    operator,
    readers_of,
    rewrite,
    shape_of,
    substitute,
)
from shuffledeploy.compiler.ir.tvm_edges import NO_ALIAS
from shuffledeploy.compiler.passes.graph.choose_layouts import permutation

_NAME = "shuffled_transposition"


def shuffles_in_transposes(module: tvm.IRModule) -> tvm.IRModule:
    """Let transpositions read by a table what only they read; see the module's docstring."""
    values, readers = dict(bindings_of(module)), readers_of(module)
    taken = {
        variable
        for variable, value in values.items()
        if _order_of(value) is not None
        and all(r is not None and permutation(values[r]) for r in readers.get(variable, ()))
    }

    def replace(
        builder: relax.BlockBuilder, variable: relax.Var, value: Any, current: Current
    ) -> Any:
        axes = permutation(value)
        if axes is None or value.args[0] not in taken:
            return None
        take = values[value.args[0]]
        order, source = _order_of(take), substitute(take.args[0], current)
        shape = shape_of(take.args[0])
        assert order is not None
        assert shape is not None
        axis = int(take.attrs.axis) % len(shape)
        function = _shuffled_transposition(shape, str(value.ty.dtype), order.size, axis, axes)
        kernel = builder.add_func(function, _NAME)
        table = constant(np.clip(order, 0, shape[axis] - 1).astype(np.int32))
        return relax.call_tir(kernel, relax.Tuple([source, table]), variable.ty)

    return rewrite(module, replace) if taken else module


def _order_of(value: Any) -> Array | None:
    """Give the table by which a value picks along an axis; None where it is no such value."""
    if operator(value) != "relax.take" or value.attrs.axis is None or not shape_of(value):
        return None
    order = constant_of(value.args[1])
    return order if order is not None and order.ndim == 1 else None


def _shuffled_transposition(
    shape: tuple[int, ...], dtype: str, picked: int, axis: int, axes: Sequence[int]
) -> tirx.PrimFunc:
    """Write a kernel that picks along an axis of a tensor and puts its axes in another order.

    Parameters
    ----------
    shape, dtype : tuple of int, str
        Of the tensor.
    picked : int
        How many elements of the axis are picked.
    axis : int
        Which axis.
    axes : sequence of int
        The tensor's axes in the order in which they are written.

    Returns
    -------
    tirx.PrimFunc
        Parameters: tensor, places that are picked (int32), output.
    """
    x, table = te.placeholder(shape, dtype, "x"), te.placeholder((picked,), "int32", "table")
    extents = [picked if place == axis else shape[place] for place in axes]

    def element(*written: Any) -> Any:
        at = [written[list(axes).index(place)] for place in range(len(shape))]
        at[axis] = table[at[axis]]
        return x(*at)

    out = te.compute(extents, element, _NAME)
    marks = {OPERATORS: ["permute_dims", "take"], NO_ALIAS: True}
    return te.create_prim_func([x, table, out]).with_attrs(marks)
