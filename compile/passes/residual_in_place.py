"""A residual that nobody reads again is overwritten by the sum that it goes into.

Before::

    y = k(h, W, x)              # y[i] = relu((W h)[i] + x[i])

After::

    y = k_in_place(h, W, x)     # x[i] = relu((W h)[i] + x[i]), and y is x
    k(h, W, x)                  # still there for those who want each layer's answer

The core's own cache then holds one large tensor of a unit in place of two, and memory does, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm_ffi import structural_map, structural_visit

from compile.kernels.finishing import KIND
from compile.passes.graph import (
    Current,
    Readers,
    bindings_of,
    called_kernel,
    readers_of,
    rewrite,
    shape_of,
    substitute,
)

IN_PLACE_SUFFIX = "_in_place"


def residual_in_place(module: tvm.IRModule) -> tvm.IRModule:
    """Let calls write where their residual stands.

    Parameters
    ----------
    module : tvm.IRModule
        Calls of scheduled kernels.

    Returns
    -------
    tvm.IRModule
        Answers as before, bit for bit. Functions beside the entry are left as they were.
    """
    functions = {gv.name_hint: f for gv, f in module.functions.items()}
    readers, fresh = readers_of(module), _fresh(module)
    places: dict[str, int | None] = {}
    references: dict[str, Any] = {}

    def replace(
        builder: relax.BlockBuilder, variable: relax.Var, value: Any, current: Current
    ) -> Any:
        name = called_kernel(value)
        if name is None:
            return None
        if name not in places:
            places[name] = _residual(functions[name])
        place = places[name]
        if place is None or not _is_free(value.args[1].fields, place, variable, readers, fresh):
            return None
        if name not in references:
            function = _over(functions[name], place)
            references[name] = builder.add_func(function, name + IN_PLACE_SUFFIX)
        fields = substitute(value.args[1], current)
        written = relax.TensorType(shape_of(variable), "float32")
        return relax.op.call_tir_inplace(references[name], fields, place, written)

    return rewrite(module, replace)


def _is_free(
    arguments: Sequence[Any],
    place: int,
    reader: relax.Var,
    readers: Readers,
    fresh: set[relax.Var],
) -> bool:
    """Tell whether a call reads an argument last, and once."""
    residual = arguments[place]
    if not isinstance(residual, relax.Var) or residual not in fresh:
        return False
    last = readers[residual][-1]
    return last is not None and last.same_as(reader) and readers[residual].count(reader) == 1


def _fresh(module: tvm.IRModule) -> set[relax.Var]:
    """List the variables that stand for memory which no other variable stands for."""
    fresh: set[relax.Var] = set()
    taken: set[tuple[relax.Var, int]] = set()

    def forget(read: relax.Var) -> relax.Var:
        fresh.discard(read)
        return read

    for variable, value in bindings_of(module):
        if called_kernel(value) is not None:
            fresh.add(variable)
        elif isinstance(value, relax.TupleGetItem) and value.tuple_value in fresh:
            part = (value.tuple_value, int(value.index))
            if part not in taken:
                fresh.add(variable)
            taken.add(part)
        else:
            # Such as another shape of the same memory.
            substitute(value, forget)
    return fresh


def _residual(function: Any) -> int | None:
    """Tell which parameter a scheduled kernel reads only to write the same element of its output.

    Its blocks write each element once: they come of a schedule.
    """
    if not isinstance(function, tirx.PrimFunc) or KIND not in (function.attrs or {}):
        return None
    *inputs, output = function.params
    beside: list[Any] = []

    def on_store(store: Any, visitor: Any) -> None:
        if store.buffer.same_as(output):
            beside.extend(
                load.source
                for load in _loads(store.value)
                if tvm_ffi.structural_equal(load.indices, store.indices)
            )
        visitor.default_visit(store)

    structural_visit(function.body, [(tirx.BufferStore, on_store)])
    loads = _loads(function.body)
    if any(load.source.same_as(output) for load in loads):
        return None
    for place, parameter in enumerate(inputs):
        alike = tvm_ffi.structural_equal(parameter.shape, output.shape)
        read = sum(load.source.same_as(parameter) for load in loads)
        if alike and read and read == sum(source.same_as(parameter) for source in beside):
            return place
    return None


def _loads(node: Any) -> list[Any]:
    """List what is read in an expression or a statement."""
    loads: list[Any] = []

    def on_load(load: Any, visitor: Any) -> None:
        loads.append(load)
        visitor.default_visit(load)

    structural_visit(node, [(tvm.ir.TensorLoad, on_load)])
    return loads


def _over(function: tirx.PrimFunc, place: int) -> tirx.PrimFunc:
    """Write a kernel whose output is one of its inputs."""
    *inputs, output = function.params
    residual = inputs[place]
    body = structural_map(
        function.body, (type(residual), lambda b: output if b.same_as(residual) else b)
    )
    parameters = [*inputs[:place], output, *inputs[place + 1 :]]
    attributes = {key: v for key, v in function.attrs.items() if key != "global_symbol"}
    return tirx.PrimFunc(parameters, body).with_attr(attributes)
