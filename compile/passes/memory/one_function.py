"""The network becomes one function of pointers, which needs no runtime.

Before::

    main(x):                                    # the virtual machine runs it
        s = alloc_storage(150528)
        a = alloc_tensor(s, 0, [1, 56, 56, 12])
        k1(x, 0, a)                             # k1 finds its weights at byte 0 of the constants
        b = alloc_tensor([1, 1000])
        k2(a, 512, b)
        return b

After::

    compute(x, b, workspace):
        k1(x, 0, workspace + 0)
        k2(workspace + 0, 512, b)

    compute_timed(x, b, workspace, ticks):      # also reads the core's counter at each kernel's end
        ticks[0] = now()
        k1(x, 0, workspace + 0)
        ticks[1] = now()
        k2(workspace + 0, 512, b)
        ticks[2] = now()

TVM has planned the memory: each storage is a piece of the workspace. What is returned is written
where the caller wants it. Nothing is allocated, and nothing global is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir import PrimType
from tvm_ffi import structural_map, structural_walk

from shuffledeploy.compiler.ir.attributes import (
    BUFFERED,
    CALLS,
    INTERNAL,
    WORKSPACE,
    kind_of,
)
from shuffledeploy.compiler.ir.constants import (
    CONSTANTS,
    constant_at,
    reading_constants,
    with_llvm,
)
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.ir.memory_layout import aligned
from shuffledeploy.compiler.ir.tir import (
    LOCAL,
    as_pointers,
    is_tensor,
    moved,
    pointer,
    tensor_bytes,
    with_parameters,
    with_root,
)
from shuffledeploy.compiler.ir.tvm_edges import NO_ALIAS, PLAIN_CALLS
from shuffledeploy.compiler.passes.memory.planned_calls import (
    CONSTANTS_BASE,
    WORKSPACE_BASE,
    Place,
    PlannedCall,
    PlannedProgram,
    planned_program,
)
from shuffledeploy.compiler.passes.memory.thread_share import COMPUTE_SHARE, compute_share

COMPUTE, COMPUTE_TIMED = "compute", "compute_timed"
#: What a kernel that is not ours may keep on the stack; more stands in the workspace.
STACK_BYTES = 1 << 14

_NOW = "shuffledeploy_ticks"
# The barrier keeps a core from reading its counter before the kernel in front of it has ended.
_COUNTERS = {
    "aarch64": '"isb\\0Amrs $0, cntvct_el0", "=r,~{memory}"()',
    "x86_64": '"lfence\\0Ardtsc\\0Ashl $$32, %rdx\\0Aor %rdx, %rax",'
    ' "={rax},~{rdx},~{memory},~{dirflag},~{fpsr},~{flags}"()',
}


def one_function(module: tvm.IRModule, architecture: str, threads: int = 1) -> tvm.IRModule:
    """Write a network as one function.

    Parameters
    ----------
    module : tvm.IRModule
        An entry function of which TVM has planned the memory, and finished kernels.
    architecture : str
        ``aarch64`` or ``x86_64``: tells which counter the core has.
    threads : int
        Of more than one there is a function that does the share of one, too
        (`compiler.passes.memory.thread_share`).

    Returns
    -------
    tvm.IRModule
        TIR only. `COMPUTE` has the attributes `WORKSPACE`, the bytes that it needs there, and
        `CALLS`.

    Raises
    ------
    UsageError
        If the network calls something that only TVM's runtime has.
    """
    program = planned_program(module)
    kernels = kernel_functions(module)
    called = dict.fromkeys(call.kernel for call in program.calls)
    scratch = {name: large_buffers(kernels[name]) for name in called}
    scratch_bytes = max((size for _, size in scratch.values()), default=0)
    references = {name: tvm.ir.GlobalVar(name) for name in called}
    functions: dict[Any, tirx.PrimFunc] = {
        variable: module[variable]
        for variable in _called_by(module, called)
        if variable.name_hint not in called
    }
    for name, reference in references.items():
        functions[reference] = _internal(kernels[name], scratch[name][0])
    types = {name: _types_of(kernels[name]) for name in called}

    def call(planned: PlannedCall, at: Callable[[Place, str], Any]) -> Any:
        arguments = [
            at(argument, dtype) if isinstance(argument, Place) else tirx.IntImm("int64", argument)
            for argument, dtype in zip(planned.arguments, types[planned.kernel], strict=True)
        ]
        if scratch[planned.kernel][0]:
            arguments.append(at(Place(WORKSPACE_BASE, program.workspace), "uint8"))
        return tvm.ir.Call(references[planned.kernel], arguments, ret_ty=PrimType("int32"))

    bases, at = _pointers(program)
    compute = _driver(program, call, bases, at, timed=False, architecture=architecture)
    marks = {WORKSPACE: program.workspace + aligned(scratch_bytes),
             CALLS: [planned.kernel for planned in program.calls]}  # fmt: skip
    functions[tvm.ir.GlobalVar(COMPUTE)] = compute.with_attr(marks)
    bases, at = _pointers(program)
    functions[tvm.ir.GlobalVar(COMPUTE_TIMED)] = _driver(
        program, call, bases, at, timed=True, architecture=architecture
    )
    if threads > 1:
        bases, at = _pointers(program)
        functions[tvm.ir.GlobalVar(COMPUTE_SHARE)] = compute_share(
            module, program, bases, at, partial(call, at=at), _copies(program, at)
        )
    return tvm.IRModule(functions).with_attr(CONSTANTS, program.constants.tensors)


def _called_by(module: tvm.IRModule, names: Iterable[str]) -> list[tvm.ir.GlobalVar]:
    """List the functions that some kernels call, and those that these call."""
    found: list[tvm.ir.GlobalVar] = []
    waiting = [module[name] for name in names]

    def visit(reference: tvm.ir.GlobalVar) -> None:
        if not any(reference.same_as(other) for other in found):
            found.append(reference)
            waiting.append(module[reference])

    while waiting:
        structural_walk(waiting.pop().body, (tvm.ir.GlobalVar, visit))
    return found


def _types_of(function: tirx.PrimFunc) -> list[str]:
    """List the types of the elements of a kernel's tensors; those of numbers are not used."""
    return [str(p.dtype) if is_tensor(p) else "" for p in function.params]


def large_buffers(function: tirx.PrimFunc, most: int = STACK_BYTES) -> tuple[tuple[Any, ...], int]:
    """List what a kernel allocates beside tiles, and its size, where that is no stack's.

    Of kernels of ours, some kinds alone have more than tiles, which stand in registers or on the
    stack.
    """
    if kind_of(function) not in ("", *BUFFERED):
        return (), 0
    if not isinstance(function.body, s_tir.SBlockRealize):
        return (), 0
    allocated = function.body.block.alloc_buffers
    buffers = tuple(buffer for buffer in allocated if buffer.scope() != LOCAL)
    size = sum(aligned(tensor_bytes(buffer.shape, buffer.dtype)) for buffer in buffers)
    return (buffers, size) if size > most else ((), 0)


def _internal(function: tirx.PrimFunc, large: tuple[Any, ...]) -> tirx.PrimFunc:
    """Let a kernel take pointers, the last one to memory for its large buffers."""
    parameters, views = as_pointers(function)
    body = structural_map(function.body, (tirx.For, _in_order))
    if large:
        scratch = pointer("scratch", "uint8")
        parameters.append(scratch)
        start = 0
        for buffer in large:
            views.append(tirx.DeclBuffer(buffer, data=moved(scratch, start, str(buffer.dtype))))
            start += aligned(tensor_bytes(buffer.shape, buffer.dtype))
        tiles = [b for b in body.block.alloc_buffers if not any(b.same_as(o) for o in large)]
        body = with_root(body, body.block.body, tiles)
    made = with_parameters(function, parameters, tirx.SeqStmt([*views, body]))
    return made.with_attr({INTERNAL: True, **PLAIN_CALLS})


def _in_order(loop: tirx.For) -> tirx.For:
    """Go through a loop's steps one after another: threads are the runtime's."""
    if loop.kind != tirx.ForKind.PARALLEL:
        return loop
    return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)


def _pointers(program: PlannedProgram) -> tuple[list[tirx.Var], Callable[[Place, str], Any]]:
    """Make a function's pointers to inputs, outputs and workspace, and what writes their places."""
    names = [
        *(f"input_{number}" for number in range(program.inputs)),
        *(f"output_{number}" for number in range(program.outputs)), WORKSPACE_BASE,
    ]  # fmt: skip
    bases = {name: pointer(name, "uint8") for name in names}

    def at(place: Place, dtype: str) -> Any:
        if place.base == CONSTANTS_BASE:
            return moved(constant_at(tirx.IntImm("int64", place.offset)), 0, dtype)
        return moved(bases[place.base], place.offset, dtype)

    return list(bases.values()), at


def _copies(program: PlannedProgram, at: Callable[[Place, str], Any]) -> list[Any]:
    return [
        tirx.Evaluate(tirx.call_extern(
            "handle", "memcpy", at(copy.output, "uint8"), at(copy.source, "uint8"),
            tirx.IntImm("uint64", copy.size),
        ))
        for copy in program.copies
    ]  # fmt: skip


def _driver(
    program: PlannedProgram,
    call: Callable[[PlannedCall, Callable[[Place, str], Any]], Any],
    bases: Sequence[tirx.Var],
    at: Callable[[Place, str], Any],
    *,
    timed: bool,
    architecture: str,
) -> tirx.PrimFunc:
    """Write the function that calls all kernels."""
    calls = [tirx.Evaluate(call(planned, at)) for planned in program.calls]
    parameters = [*bases]
    if timed:
        counter = pointer("ticks", "int64")
        parameters.append(counter)
        calls = _with_ticks(calls, counter)
    end = tirx.Return(tirx.IntImm("int32", 0))
    body = reading_constants(tirx.SeqStmt([*calls, *_copies(program, at), end]))
    if timed:
        code = f"call i64 asm sideeffect {_COUNTERS[architecture]}"
        body = with_llvm(body, f"define i64 @{_NOW}() {{\n  %t = {code}\n  ret i64 %t\n}}\n")
    function = tirx.PrimFunc(parameters, body, PrimType("int32"))
    return function.with_attr({NO_ALIAS: True, "s_tir": True, **PLAIN_CALLS})


def _with_ticks(calls: list[Any], counter: Any) -> list[Any]:
    """Read the counter before the first call and after each."""
    ticks = tirx.decl_buffer((len(calls) + 1,), "int64", "read")
    marked = [
        tirx.BufferStore(ticks, tirx.call_extern("int64", _NOW), [number])
        for number in range(len(calls) + 1)
    ]
    following = [part for pair in zip(calls, marked[1:], strict=True) for part in pair]
    return [tirx.DeclBuffer(ticks, data=counter), marked[0], *following]
