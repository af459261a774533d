"""A kernel that writes its sums where the residual stands that they take up.

Before::

    out[p, o] = relu(total[p, o] + residual[p, o])

After::

    residual[p, o] = relu(total[p, o] + residual[p, o])
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm_ffi import structural_visit

from shuffledeploy.compiler.ir.attributes import kind_of
from shuffledeploy.compiler.ir.tir import loads_in, with_parameters, with_values


def residual_of(function: Any) -> int | None:
    """Tell which parameter a scheduled kernel reads only to write the same element of its output.

    Returns
    -------
    int, optional
        The first of such; ``None`` where there is none, or the function is no kernel of ours.
    """
    # Blocks write each element once: they come of a schedule.
    if not kind_of(function):
        return None
    *inputs, output = function.params
    beside: list[Any] = []

    def on_store(store: Any, visitor: Any) -> None:
        if store.buffer.same_as(output):
            beside.extend(
                load.source
                for load in loads_in(store.value)
                if tvm_ffi.structural_equal(load.indices, store.indices)
            )
        visitor.default_visit(store)

    structural_visit(function.body, [(tirx.BufferStore, on_store)])
    loads = loads_in(function.body)
    if any(load.source.same_as(output) for load in loads):
        return None
    for place, parameter in enumerate(inputs):
        alike = tvm_ffi.structural_equal(parameter.shape, output.shape)
        read = sum(load.source.same_as(parameter) for load in loads)
        if alike and read and read == sum(source.same_as(parameter) for source in beside):
            return place
    return None


def over_residual(function: tirx.PrimFunc, place: int) -> tirx.PrimFunc:
    """Write a kernel whose output stands in the place of one of its inputs.

    Parameters
    ----------
    function : tirx.PrimFunc
        A scheduled kernel.
    place : int
        What :func:`residual_of` tells of it.

    Returns
    -------
    tirx.PrimFunc
        The parameter at `place` is read and written; there is no other output.
    """
    *inputs, output = function.params
    body = with_values(function.body, {inputs[place]: output})
    return with_parameters(function, [*inputs[:place], output, *inputs[place + 1 :]], body)
