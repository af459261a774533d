"""Scheduled kernels take the place of unscheduled ones, and weights the layout they read.

Before::

    k(x, W)          # W[g, kh, kw, K, N]

After::

    k'(x, W')        # k' reads blocks of b outputs: W'[g, N / b, kh, kw, K, b]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax, tirx

from shuffledeploy.compiler.ir.graph import (
    Array,
    Current,
    called_kernel,
    constant,
    constant_of,
    rewrite,
    substitute,
)


def replace_kernels(module: tvm.IRModule, functions: Mapping[str, Any]) -> tvm.IRModule:
    """Call scheduled kernels, with constants laid out as they declare them.

    Parameters
    ----------
    module : tvm.IRModule
        Calls of unscheduled kernels.
    functions : mapping
        Scheduled kernels by name.
    """
    old = {gv.name_hint: f for gv, f in module.functions.items() if isinstance(f, tirx.PrimFunc)}
    # A reference carries its function's type: the new functions get references of their own.
    others = {gv: f for gv, f in module.functions.items() if gv.name_hint not in old}
    references: dict[str, Any] = {}

    def replace(builder: relax.BlockBuilder, _: relax.Var, value: Any, current: Current) -> Any:
        name = called_kernel(value)
        if name is None:
            return None
        function = functions.get(name, old[name])
        if name not in references:
            references[name] = builder.add_func(function, name)
        fields = substitute(value.args[1], current).fields
        arguments = [
            _as_declared(field, [int(extent) for extent in parameter.shape])
            for field, parameter in zip(fields, function.params, strict=False)
        ]
        call = [references[name], relax.Tuple(arguments), *value.args[2:]]
        return tvm.ir.Call(value.op, call, value.attrs, value.ty_args)

    return rewrite(tvm.IRModule(others, attrs=module.attrs), replace)


def _as_declared(argument: Any, shape: list[int]) -> Any:
    values = constant_of(argument)
    if values is None or list(values.shape) == shape:
        return argument
    return constant(blocked(values, shape[-1]))


def blocked(weight: Array, width: int) -> Array:
    """Lay packed weights ``(g, kh, kw, K, N)`` out as ``(g, N / width, kh, kw, K, width)``."""
    *outer, outputs = weight.shape
    split = weight.reshape(*outer, outputs // width, width)
    return split.transpose(0, 4, 1, 2, 3, 5)
