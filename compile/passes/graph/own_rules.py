"""Rules for operators that TVM has no code for, or none that a network without a runtime can call.

Before::

    x -> argsort(axis=1)
    x -> cumsum(axis=1)

After::

    x -> reshape -> sorting (order, scratch) -> order -> reshape
    x -> reshape -> running -> reshape
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import operator, shape_of
from shuffledeploy.compiler.kernels import sequential


def _running(builder: relax.BlockBuilder, call: Any) -> Any:
    shape, axis, source, dtype = _place(call)
    function = sequential.running(
        shape, axis, source, dtype, product=operator(call) == "relax.cumprod"
    )
    return _called(builder, call, function, "running", [])


def _sorting(builder: relax.BlockBuilder, call: Any) -> Any:
    shape, axis, source, dtype = _place(call)
    function = sequential.sorting(
        shape, axis, source, dtype, descending=bool(call.attrs.descending)
    )
    return _called(builder, call, function, "sorting", [((2, shape[axis]), "int32")])


def _scattering(builder: relax.BlockBuilder, call: Any) -> Any:
    data, index, added = call.args
    shapes = [shape_of(tensor) or () for tensor in (data, index, added)]
    axis, reduction = int(call.attrs.axis), str(call.attrs.reduction)
    if shapes[1] != shapes[2] or reduction not in ("update", "add", "mul"):
        return call
    function = sequential.scattering(
        shapes[0], shapes[1], axis % len(shapes[0]), (str(data.ty.dtype), str(index.ty.dtype)),
        reduction,
    )  # fmt: skip
    kernel = builder.add_func(function, "scattering")
    return relax.call_tir(kernel, [data, index, added], call.ty)


def _place(call: Any) -> tuple[tuple[int, ...], int, str, str]:
    shape = shape_of(call.args[0])
    assert shape is not None
    axis = int(call.attrs.axis) % len(shape)
    return shape, axis, str(call.args[0].ty.dtype), str(call.ty.dtype)


def _called(
    builder: relax.BlockBuilder,
    call: Any,
    function: Any,
    name: str,
    scratch: list[tuple[tuple[int, ...], str]],
) -> Any:
    """Call a kernel that takes its tensors by outer, middle and inner extent."""
    inside = tuple(int(extent) for extent in function.params[0].shape)
    data = builder.emit(relax.op.reshape(call.args[0], inside))
    dtype = str(call.ty.dtype)
    types = [relax.TensorType(shape, kind) for shape, kind in [(inside, dtype), *scratch]]
    kernel = builder.add_func(function, name)
    written = builder.emit(relax.call_tir(kernel, [data], types if scratch else types[0]))
    result = builder.emit(relax.TupleGetItem(written, 0)) if scratch else written
    return relax.op.reshape(result, shape_of(call))


#: By operator: what stands for a call of it.
OWN_RULES: dict[str, Callable[[relax.BlockBuilder, tvm.ir.Call], Any]] = {
    "relax.cumsum": _running,
    "relax.cumprod": _running,
    "relax.argsort": _sorting,
    "relax.scatter_elements": _scattering,
}
