"""What no kernel of this project covers goes TVM's own way.

Before::

    kernel -> mod -> cos -> reshape -> kernel

After::

    kernel -> fused_mod_cos -> reshape (a view) -> kernel

Reshapes are kept as views of the same memory before anything is fused with them. Each kernel is
marked with the operators that it came from.
"""

from __future__ import annotations

import hashlib
from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Current,
    bindings_of,
    called_kernel,
    operator,
    rewrite,
    substitute,
)
from shuffledeploy.compiler.passes.graph.kernel_origins import KernelOrigins
from shuffledeploy.compiler.passes.graph.own_rules import OWN_RULES
from shuffledeploy.model.errors import UsageError

#: Characters of a kernel's name: TVM names one that it fused by all that is in it.
LONGEST_NAME = 200
# What the virtual machine takes as it is; "" is no call of an operator.
_UNDERSTOOD = {"", "relax.call_tir", "relax.call_pure_packed", "relax.reshape"}


def fuse_rest(module: tvm.IRModule) -> tvm.IRModule:
    """Legalise, fuse and tidy the operators that are left.

    Raises
    ------
    UsageError
        If the program has an operator for which TVM has no code; the message names it.
    """
    transform, origins = relax.transform, KernelOrigins()
    fuse = [
        transform.LegalizeOps(origins.noting(module, OWN_RULES), enable_warning=False),
        transform.RewriteDataflowReshape(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
    ]
    tidy = [
        transform.FuseTIR(),
        transform.CanonicalizeBindings(),
        transform.DeadCodeElimination(["main"]),
    ]
    module = origins.note_fused(tvm.transform.Sequential(fuse)(module))
    module = _short_names(origins.mark(tvm.transform.Sequential(tidy)(module)))
    names = {operator(value) for _, value in bindings_of(module)} - _UNDERSTOOD
    if names:
        listed = ", ".join(sorted(name.removeprefix("relax.") for name in names))
        raise UsageError(f"TVM has no code for these operators of the program: {listed}")
    return module


def _short_names(module: tvm.IRModule) -> tvm.IRModule:
    """Cut long names, each to one of its own."""
    long = {gv: f for gv, f in module.functions.items() if len(gv.name_hint) > LONGEST_NAME}
    if not long:
        return module
    kept = {gv: f for gv, f in module.functions.items() if gv not in long}
    references: dict[str, Any] = {}

    def replace(builder: relax.BlockBuilder, _: relax.Var, value: Any, current: Current) -> Any:
        name = called_kernel(value)
        if name is None or len(name) <= LONGEST_NAME:
            return None
        if name not in references:
            digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
            function = next(f for gv, f in long.items() if gv.name_hint == name)
            short = f"{name[:80]}_{digest}"
            references[name] = builder.add_func(function.without_attr("global_symbol"), short)
        arguments = [references[name], *(substitute(a, current) for a in value.args[1:])]
        return tvm.ir.Call(value.op, arguments, value.attrs, value.ty_args)

    return rewrite(tvm.IRModule(kept, attrs=module.attrs), replace)
