"""Kernels are computed by several threads, each its part.

Before::

    k(x, out): for tile in range(98): ...

After::

    k(x, out): for part in parallel(2): k_part(x, out, part)
    k_part(x, out, part): for step in range(...): ...   # tiles of this part

Schedules are of whole kernels. How many threads there are is a fact of the library: one that is
given fewer computes the parts one after another.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx

from shuffledeploy.compiler.ir.attributes import (
    INTERNAL,
    OF_KERNEL,
    PART,
    PARTS,
    STRIPS,
    attribute,
    kernel_of,
    kind_of,
)
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.ir.tvm_edges import NO_ALIAS
from shuffledeploy.compiler.kernels.images import multiply_adds_of
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls
from shuffledeploy.compiler.passes.memory.one_function import STACK_BYTES, large_buffers
from shuffledeploy.compiler.passes.tir.fetch_weights import fetch_next_weights
from shuffledeploy.compiler.passes.tir.one_step_buffers import hold_one_step
from shuffledeploy.compiler.threads.parts import only_part, part_call, part_of

# Multiply-adds of a network below which threads wait for each other longer than they compute: on
# two threads one of 0.7 M took 2.4 times as long as on one, one of 38 M 0.63 times (measured, as in
# compile/README.md).
LEAST_WORK = 5_000_000
#: Bytes that a kernel's buffers may take of a thread's stack, which has 1 MB on Android.
MOST_ON_STACK = 1 << 19


def compute_on_threads(
    module: tvm.IRModule, threads: int, *, fetches: bool, least_work: int = 0
) -> tvm.IRModule:
    """Share out the work of kernels.

    Parameters
    ----------
    module : tvm.IRModule
        Calls of scheduled kernels.
    threads : int
        How many there are; with one all stays as it is.
    fetches : bool
        Whether kernels ask for the weights of their next block, which is known of whole loops.
    least_work : int
        Multiply-adds of one inference below which all stays as it is.

    Returns
    -------
    tvm.IRModule
        Answers as before, bit for bit. A kernel that is shared out is marked with the function
        that does a part (see :mod:`compiler.ir.attributes`).
    """
    if threads == 1 or _work(module) < least_work:
        return module
    functions: dict[Any, Any] = dict(module.functions)
    for variable, given in module.functions.items():
        if not _is_called(given):
            continue
        function = hold_one_step(given)
        whole = fetch_next_weights(function) if fetches and kind_of(function) else function
        part = part_of(whole, threads)
        parts = threads if part is not None else 1
        name = str(variable.name_hint)
        reference = tvm.ir.GlobalVar(f"{name}_part")
        part = part or only_part(whole)
        if attribute(function, STRIPS) is None:
            part = part.with_attr(OF_KERNEL, kernel_of(function, name))
        functions[reference] = part
        functions[variable] = _shared_out(function, reference, parts)
    return tvm.IRModule(functions, attrs=module.attrs)


def _work(module: tvm.IRModule) -> int:
    """Count the multiply-adds of one inference."""
    kernels = kernel_functions(module)
    return sum(multiply_adds_of(kernels[name]) for _, name in kernel_calls(module))


def _is_called(function: Any) -> bool:
    """Whether the network calls a function, of which each thread has all buffers for itself."""
    if not isinstance(function, tirx.PrimFunc) or attribute(function, INTERNAL) is not None:
        return False
    most = MOST_ON_STACK if kind_of(function) else STACK_BYTES
    return not large_buffers(hold_one_step(function), most)[0]


def _shared_out(function: tirx.PrimFunc, part: tvm.ir.GlobalVar, parts: int) -> tirx.PrimFunc:
    """Write a function that calls another for each part, in parallel."""
    buffers = [
        tirx.decl_buffer([int(extent) for extent in p.shape], str(p.dtype), str(p.name))
        for p in function.params
    ]
    body = part_call(part, [buffer.data for buffer in buffers], parts)
    kept = {n: function.attrs[n] for n in (OF_KERNEL, STRIPS) if n in (function.attrs or {})}
    marks = {NO_ALIAS: True, "s_tir": True, PART: str(part.name_hint), PARTS: parts}
    return tirx.PrimFunc(buffers, body).with_attr({**marks, **kept})
