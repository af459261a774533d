"""A network without a runtime is computed by several threads of its caller, a share each.

Before::

    compute(x, b, workspace):
        k1(x, 0, workspace + 0)                 # for part in parallel(2): k1_part(...)
        k2(workspace + 0, 512, b)

Beside it stands::

    compute_share(x, b, workspace, thread, meet, with):
        k1_part(x, constants + 0, workspace + 0, thread)
        meet(with)
        k2_part(workspace + 0, constants + 512, b, thread)
        meet(with)

All threads call it, and `meet` returns in each once it was called in all. What is not shared out is
computed by the first thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import PrimType

from shuffledeploy.compiler.ir.attributes import PART, PARTS, attribute
from shuffledeploy.compiler.ir.constants import constant_at, reading_constants, with_llvm
from shuffledeploy.compiler.ir.tir import moved, pointer
from shuffledeploy.compiler.ir.tvm_edges import PLAIN_CALLS
from shuffledeploy.compiler.passes.memory.planned_calls import Place, PlannedCall, PlannedProgram
from shuffledeploy.compiler.threads.parts import PART_TYPE

COMPUTE_SHARE = "compute_share"

_MEET = "shuffledeploy_meet"
# TIR calls functions by their names alone.
_MEETS = f"""\
define i32 @{_MEET}(ptr %meet, ptr %with) {{
  call void %meet(ptr %with)
  ret i32 0
}}
"""


def compute_share(
    module: tvm.IRModule,
    program: PlannedProgram,
    bases: Sequence[tirx.Var],
    at: Callable[[Place, str], Any],
    whole: Callable[[PlannedCall], Any],
    copies: Sequence[Any],
) -> tirx.PrimFunc:
    """Write the function that does the share of one thread.

    Parameters
    ----------
    module : tvm.IRModule
        The finished kernels, and the functions of their parts.
    program : PlannedProgram
        What the network calls.
    bases : sequence of tirx.Var
        Pointers to inputs, outputs and the workspace: its first parameters.
    at : Callable
        Writes a pointer to a place, to elements of a type.
    whole : Callable
        Writes the call of a whole kernel.
    copies : sequence
        Statements that copy answers to where they are wanted.
    """
    thread = tirx.Var("thread", "int32")
    meet, given = pointer("meet", "uint8"), pointer("with", "uint8")
    together = tirx.Evaluate(tirx.call_extern("int32", _MEET, meet, given))

    def alone(statement: Any) -> Any:
        return tirx.IfThenElse(tirx.EQ(thread, 0), statement, None)

    steps: list[Any] = []
    for planned in program.calls:
        function = module[planned.kernel]
        part, parts = attribute(function, PART), int(attribute(function, PARTS) or 1)
        if part is None:
            steps.append(alone(tirx.Evaluate(whole(planned))))
        else:
            reference = module.get_global_var(str(part))
            share = _share(reference, module[reference], planned, at, thread)
            steps.append(share if parts > 1 else alone(share))
        steps.append(together)
    if copies:
        steps += [*map(alone, copies), together]
    end = tirx.Return(tirx.IntImm("int32", 0))
    body = with_llvm(reading_constants(tirx.SeqStmt([*steps, end])), _MEETS)
    function = tirx.PrimFunc([*bases, thread, meet, given], body, PrimType("int32"))
    # What a thread reads others may have written: its pointers are not alone with their memory.
    return function.with_attr({"s_tir": True, **PLAIN_CALLS})


def _share(
    reference: tvm.ir.GlobalVar,
    part: tirx.PrimFunc,
    planned: PlannedCall,
    at: Callable[[Place, str], Any],
    thread: tirx.Var,
) -> Any:
    """Call the function of a kernel's parts for that of a thread."""
    types = [str(p.ty.element_type.dtype) for p in part.params[:-1]]
    pointers = [
        at(argument, dtype)
        if isinstance(argument, Place)
        else moved(constant_at(tirx.IntImm("int64", argument)), 0, dtype)
        for argument, dtype in zip(planned.arguments, types, strict=True)
    ]
    arguments = [*pointers, tirx.Cast(PART_TYPE, thread)]
    return tirx.Evaluate(tvm.ir.Call(reference, arguments, ret_ty=PrimType("int32")))
