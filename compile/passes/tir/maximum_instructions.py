"""The larger and the smaller of two floats become one instruction where the target has one.

Before::

    y[0:4] = max(y[0:4], x[p, 0:4])                     # fcmgt, bsl and mov on AArch64

After, on AArch64::

    y[0:4] = llvm.maximum(y[0:4], x[p, 0:4])            # fmax

TVM compares and selects, which answers the second number where one of the two is NaN. LLVM has to
keep that, and finds an instruction for it on x86, but on AArch64 only beside a constant.
``llvm.maximum`` answers NaN, as PyTorch does.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm_ffi import structural_map

_INSTRUCTIONS = ((tirx.Max, "llvm.maximum"), (tirx.Min, "llvm.minimum"))


def write_maximums(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Write out the larger and the smaller of two floats in a lowered function for AArch64."""
    changes = [(kind, _writer(name)) for kind, name in _INSTRUCTIONS]
    return function.with_body(structural_map(function.body, changes))


def _writer(name: str) -> Any:
    def write(node: Any) -> Any:
        dtype = str(node.ty.dtype)
        if not dtype.startswith("float"):
            return node
        return tirx.call_llvm_pure_intrin(dtype, name, node.a, node.b)

    return write
