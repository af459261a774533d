"""What no kernel of this project covers goes TVM's own way.

Before::

    kernel -> sigmoid -> multiply -> reshape -> kernel

After::

    kernel -> fused_sigmoid_multiply -> reshape (a view) -> kernel

Reshapes are kept as views of the same memory before anything is fused with them.
"""

from __future__ import annotations

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import bindings_of, operator
from shuffledeploy.model.errors import UsageError

# What the virtual machine takes as it is; "" is no call of an operator.
_UNDERSTOOD = {"", "relax.call_tir", "relax.call_pure_packed", "relax.reshape"}


def fuse_rest(module: tvm.IRModule) -> tvm.IRModule:
    """Legalise, fuse and tidy the operators that are left.

    Raises
    ------
    UsageError
        If the program has an operator for which TVM has no code; the message names it.
    """
    transform = relax.transform
    passes = [
        transform.LegalizeOps(enable_warning=False),
        transform.RewriteDataflowReshape(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.CanonicalizeBindings(),
        transform.DeadCodeElimination(["main"]),
    ]
    module = tvm.transform.Sequential(passes)(module)
    names = {operator(value) for _, value in bindings_of(module)} - _UNDERSTOOD
    if names:
        listed = ", ".join(sorted(name.removeprefix("relax.") for name in names))
        raise UsageError(f"TVM has no code for these operators of the program: {listed}")
    return module
