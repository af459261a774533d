"""A second entry into the same library answers with what every kernel wrote.

Before::

    main(x) = k3(k2(k1(x)))

After::

    main(x)          = k3(k2(k1(x)))
    intermediates(x) = (k1(x), k2(k1(x)), k3(k2(k1(x))))

The two share kernels and constants, so it costs a few kilobytes. When parity fails, it tells which
kernel was the first to go wrong.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import ENTRY, bindings_of, called_kernel

INTERMEDIATES = "intermediates"


def kernel_calls(module: tvm.IRModule) -> list[tuple[relax.Var, str]]:
    """List the kernel calls of the entry function in order: variable and kernel's name."""
    return [
        (variable, name)
        for variable, value in bindings_of(module)
        if (name := called_kernel(value)) is not None
    ]


def expose_intermediates(module: tvm.IRModule) -> tvm.IRModule:
    """Add the function ``intermediates`` beside ``main``."""
    function = relax.utils.copy_with_new_vars(module[ENTRY])
    variables = [
        binding.var
        for block in function.body.blocks
        for binding in block.bindings
        if called_kernel(binding.value) is not None
    ]
    body = relax.Tuple(variables)
    blocks = [_without_dataflow(block) for block in function.body.blocks]
    exposed = relax.Function(
        function.params, relax.SeqExpr(blocks, body), body.ty, is_pure=True
    ).with_attr("global_symbol", INTERMEDIATES)
    result = tvm.IRModule(dict(module.functions), attrs=module.attrs)
    result[INTERMEDIATES] = exposed
    return relax.transform.ToNonDataflow()(result)


def _without_dataflow(block: Any) -> Any:
    return relax.BindingBlock(block.bindings)
