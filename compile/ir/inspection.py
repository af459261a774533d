"""What a kernel does, read from its code: used to count shuffles honestly and by tests."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_walk

from shuffledeploy.compiler.ir.attributes import JOINED, kind_of

_ARITHMETIC = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min, tirx.Cast)


def kernel_functions(module: tvm.IRModule) -> dict[str, tirx.PrimFunc]:
    """List the TIR kernels of a module by name."""
    return {
        variable.name_hint: function
        for variable, function in module.functions.items()
        if isinstance(function, tirx.PrimFunc)
    }


def element_of(function: tirx.PrimFunc) -> str:
    """Name the type of the elements that a kernel writes."""
    return str(function.params[-1].dtype)


def moves_only(function: tirx.PrimFunc) -> bool:
    """Whether a kernel does no arithmetic on its elements: it copies, rearranges or fills."""
    computes = False

    def visit(node: Any) -> None:
        nonlocal computes
        if "float" not in str(node.ty):
            return
        if isinstance(node, tvm.ir.Call):
            computes = computes or getattr(node.op, "name", "") != "tirx.if_then_else"
        else:
            computes = True

    structural_walk(function.body, (((*_ARITHMETIC, tvm.ir.Call), visit),))
    return not computes


def is_shuffle(name: str, function: tirx.PrimFunc) -> bool:
    """Whether a kernel is a pass over memory that only rearranges one tensor.

    A kernel that TVM fused around a gather or a transposition counts too, whatever else is in it.
    A concatenation does not: it joins tensors that were computed apart.
    """
    kind = kind_of(function)
    if kind:
        return kind == JOINED and len(_tensors(function)) == 2 and moves_only(function)
    if any(word in name for word in ("take", "transpose", "gather")):
        return True
    return moves_only(function) and len(_tensors(function)) == 2


def _tensors(function: tirx.PrimFunc) -> list[Any]:
    buffers = list(function.params)
    return [buffer for buffer in buffers if "float" in str(buffer.dtype)]
