"""Neighbours with large tensors are computed together, strip by strip, while rows are in the cache.

Before::

    a = k1(x)
    b = k2(a)
    c = k3(b, a)

After::

    c = strips_of_3_k1(x)    # k1 rows 0-7, k2 rows 0-6, k3 rows 0-6, k1 rows 8-15, k2 rows 7-14...
    k1(x) = k1_rows(x, all)  # still there for those who want a layer alone
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm
from tvm import relax, tirx

from shuffledeploy.compiler.ir.attributes import OF_KERNEL, STRIPS
from shuffledeploy.compiler.ir.graph import rebuild, shape_of, substitute
from shuffledeploy.compiler.ir.memory_layout import FLOAT_BYTES
from shuffledeploy.compiler.passes.tir.over_residual import over_residual
from shuffledeploy.compiler.strips.driver import (
    Callee,
    Images,
    Inside,
    Outside,
    strip_driver,
    whole_range,
)
from shuffledeploy.compiler.strips.groups import StripGroup, find_groups
from shuffledeploy.compiler.strips.kernel_calls import KernelCall
from shuffledeploy.compiler.strips.ranged import ranged
from shuffledeploy.compiler.strips.strip_plan import plan_strips

# Ranged kernels by name, and by whether they are written over a residual.
References = dict[tuple[str, bool], Any]


def compute_in_strips(
    module: tvm.IRModule,
    unscheduled: Mapping[str, tirx.PrimFunc],
    cache: int,
    small_indices: bool = True,
) -> tvm.IRModule:
    """Replace groups of calls by one call each.

    Parameters
    ----------
    module : tvm.IRModule
        Calls of scheduled kernels.
    unscheduled : mapping
        The same kernels before they were scheduled, by name.
    cache : int
        Bytes that stay close to the target's core.
    small_indices : bool
        Whether LLVM is to know how large the indices of ranges can become: on x86 it else keeps
        sums in memory; on AArch64 it is one instruction a tile for nothing.

    Returns
    -------
    tvm.IRModule
        Answers as before, bit for bit. Each new function is marked with the kernels that it calls,
        in order: :mod:`compiler.ir.attributes`.
    """
    found = find_groups(module, unscheduled, cache, small_indices)
    if not found:
        return module
    module, references = _split_kernels(module, found, small_indices)
    last = {group.calls[-1].variable: group for group in found}
    inside = {call.variable for group in found for call in group.calls}
    replaced: dict[relax.Var, Any] = {}

    def current(variable: relax.Var) -> Any:
        return replaced.get(variable, variable)

    def emit(builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        if variable in last:
            group = last[variable]
            replaced.update(_emit(builder, group, references, current))
        elif variable not in inside:
            replaced[variable] = builder.emit(substitute(value, current))

    return rebuild(module, emit, lambda _, result: substitute(result, current))


def _split_kernels(
    module: tvm.IRModule, groups: Sequence[StripGroup], small_indices: bool
) -> tuple[tvm.IRModule, References]:
    """Let kernels be calls of their ranged forms, and list these."""
    functions = dict(module.functions)
    variables = {variable.name_hint: variable for variable in functions}
    references: References = {}
    for group in groups:
        for call, layer in group.calls_and_layers:
            key = call.name, layer.over is not None
            if key in references:
                continue
            variable = variables[call.name]
            if layer.over is None:
                references[key] = tvm.ir.GlobalVar(f"{call.name}_rows")
                rows = call.ranged.function
                functions[variable] = whole_range(
                    functions[variable], references[key], call.ranged.units
                )
            else:
                references[key] = tvm.ir.GlobalVar(f"{call.name}_in_place_rows")
                rows = _ranged_in_place(module[variable], call, small_indices)
            functions[references[key]] = rows.with_attr(OF_KERNEL, call.kernel)
    return tvm.IRModule(functions, attrs=module.attrs), references


def _ranged_in_place(
    function: tirx.PrimFunc, call: KernelCall, small_indices: bool
) -> tirx.PrimFunc:
    """Let a kernel write a range of its pixels over its residual."""
    if call.in_place:
        return call.ranged.function
    assert call.residual is not None
    over = over_residual(function, call.residual)
    kernel = ranged(over, call.residual, small_indices=small_indices)
    assert kernel is not None
    return kernel.function


def _emit(
    builder: relax.BlockBuilder,
    group: StripGroup,
    references: References,
    current: Callable[[relax.Var], Any],
) -> dict[relax.Var, Any]:
    """Call a group's driver; return what stands for the outputs that are kept."""
    layers = group.places
    fields: list[Any] = [current(tensor) for tensor in group.given]
    buffers: list[Any] = [
        tirx.decl_buffer(shape_of(tensor), str(tensor.ty.dtype), f"over_{number}")
        for number, tensor in enumerate(group.given)
    ]
    callees = {}
    moving = set(range(len(fields)))
    for call, layer in group.calls_and_layers:
        own = layers[call.variable]
        arguments: list[Inside | Outside] = []
        parameters = zip(call.arguments, call.unscheduled.params, strict=False)
        for number, (argument, parameter) in enumerate(parameters):
            if argument in layers:
                source = layers[argument]
                arguments.append(Inside(own if source == layer.over else source))
                continue
            value = substitute(argument, current)
            known = [i for i, other in enumerate(fields) if other.same_as(value)]
            position = known[0] if known else len(fields)
            arguments.append(Outside(position))
            if number in call.tensors:
                moving.add(position)
            if not known:
                name = f"in_{len(fields)}"
                buffers.append(tirx.decl_buffer(shape_of(value), str(parameter.dtype), name))
                fields.append(value)
        if layer.over is None:
            arguments.append(Inside(own))
        callees[own] = Callee(references[call.name, layer.over is not None], tuple(arguments))
    plan = plan_strips(group.layers, group.strips)
    kept = [(layers[call.variable], call) for call, layer in group.calls_and_layers if layer.kept]
    new = [(index, call.shape) for index, call in kept if plan.places[index] == index]
    images = Images(group.images, moving)
    driver = strip_driver(plan, group.layers, callees, buffers, new, images)
    driver = driver.with_attr(STRIPS, [call.kernel for call in group.calls])
    name = f"strips_of_{len(callees)}_{group.calls[0].kernel}"
    reference = builder.add_func(driver, name)
    # What is given comes first among the layers, and among what the driver is given.
    at = [plan.places[index] for index, _ in kept]
    over = [place if group.layers[place].given else -1 for place in at]
    types = [relax.TensorType(call.shape, str(call.variable.ty.dtype)) for _, call in kept]
    if plan.workspace:
        types.append(relax.TensorType((plan.workspace // FLOAT_BYTES,), "float32"))
        over.append(-1)
    result = builder.emit(_call(reference, fields, over, types))
    return {
        call.variable: result
        if len(types) == 1
        else builder.emit(relax.TupleGetItem(result, position))
        for position, (_, call) in enumerate(kept)
    }


def _call(reference: Any, fields: Sequence[Any], over: Sequence[int], types: Sequence[Any]) -> Any:
    """Call a driver; `over` tells for each output which input it stands in, -1 for none."""
    written = types[0] if len(types) == 1 else list(types)
    if all(position < 0 for position in over):
        return relax.call_tir(reference, relax.Tuple(list(fields)), written)
    return relax.op.call_tir_inplace(reference, relax.Tuple(list(fields)), list(over), written)
