"""A residual that nobody reads again is overwritten by the sum that it goes into.

Before::

    y = k(h, W, x)              # y[i] = relu((W h)[i] + x[i])

After::

    y = k_in_place(h, W, x)     # x[i] = relu((W h)[i] + x[i]), and y is x
    k(h, W, x)                  # still there for those who want each layer's answer

The core's own cache then holds one large tensor of a unit in place of two, and memory does, too.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import OF_KERNEL, kernel_of
from shuffledeploy.compiler.ir.graph import (
    Current,
    called_kernel,
    fresh_variables,
    is_last_read,
    operator,
    readers_of,
    rewrite,
    shape_of,
    substitute,
)
from shuffledeploy.compiler.passes.tir.over_residual import over_residual, residual_of


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
    readers, fresh = readers_of(module), fresh_variables(module)
    places: dict[str, int | None] = {}
    references: dict[str, Any] = {}

    def replace(
        builder: relax.BlockBuilder, variable: relax.Var, value: Any, current: Current
    ) -> Any:
        name = called_kernel(value)
        if name is None or operator(value) != "relax.call_tir":
            return None
        if name not in places:
            places[name] = residual_of(functions[name])
        place = places[name]
        if place is None:
            return None
        residual = value.args[1].fields[place]
        if residual not in fresh or not is_last_read(readers, residual, variable):
            return None
        if name not in references:
            function = over_residual(functions[name], place)
            function = function.with_attr(OF_KERNEL, kernel_of(functions[name], name))
            references[name] = builder.add_func(function, f"{name}_in_place")
        fields = substitute(value.args[1], current)
        written = relax.TensorType(shape_of(variable), str(variable.ty.dtype))
        return relax.op.call_tir_inplace(references[name], fields, place, written)

    return rewrite(module, replace)
