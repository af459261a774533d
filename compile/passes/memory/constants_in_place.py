"""Constants stay where the library is mapped, and kernels read them there.

Before::

    main(x) = k(x, W, b)        # W, b: in the virtual machine's pool

After::

    main(x) = k'(x, 0, 512)     # k' finds W at byte 0 of the library's constants, b at byte 512

The virtual machine copies its pool out of the library when it is loaded, twice on the way, while
the library's pages stay resident: weights would take twice their size, and four times while
loading. As read-only data of the library they are there once and nothing loads them; the system
reads a page when a kernel does, and may drop it again. Nobody else is involved, so it works over
RPC too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tvm
from tvm import relax, s_tir, tirx

from shuffledeploy.compiler.ir.constants import (
    CONSTANTS,
    Constants,
    constant_at,
    reading_constants,
)
from shuffledeploy.compiler.ir.graph import Array, called_kernel, constant_of
from shuffledeploy.compiler.ir.tir import with_root


def constants_in_place(module: tvm.IRModule) -> tvm.IRModule:
    """Let kernels read their constants from the library.

    Parameters
    ----------
    module : tvm.IRModule
        Relax functions that call scheduled kernels.

    Returns
    -------
    tvm.IRModule
        A parameter that is a constant in all calls of a kernel is a number (int64): the byte at
        which the constant starts among those of the module's attribute `CONSTANTS`.
    """
    always = _always_constant(module)
    constants = Constants()
    changed = {gv: always[gv.name_hint] for gv in module.functions if always.get(gv.name_hint)}
    kept = {gv: function for gv, function in module.functions.items() if gv not in changed}
    # A reference carries its function's type: the new functions get references of their own.
    builder = relax.BlockBuilder(tvm.IRModule(kept, attrs=module.attrs))
    references = {
        gv.name_hint: builder.add_func(_reading_in_place(module[gv], places), gv.name_hint)
        for gv, places in changed.items()
    }

    def with_starts(value: Any) -> Any:
        name = called_kernel(value)
        if name is None or name not in references:
            return value
        fields = list(value.args[1].fields)
        for place in always[name]:
            start = constants.start_of(fields[place].value)
            fields[place] = tirx.const(start, "int64")
        arguments = [references[name], relax.Tuple(fields), *value.args[2:]]
        return tvm.ir.Call(value.op, arguments, value.attrs, value.ty_args)

    functions = {
        gv: _with_values(f, with_starts) if isinstance(f, relax.Function) else f
        for gv, f in builder.get().functions.items()
    }
    return tvm.IRModule(functions, attrs=module.attrs).with_attr(CONSTANTS, constants.tensors)


def constant_bytes(module: tvm.IRModule) -> dict[str, int]:
    """Tell, by kernel, of how many bytes the constants are that one call reads in place."""
    always = _always_constant(module)
    sizes = {}
    for function in module.functions.values():
        for value in _values(function):
            if (name := called_kernel(value)) is not None:
                fields = value.args[1].fields
                sizes[name] = sum(_constant(fields[place]).nbytes for place in always[name])
    return sizes


def _always_constant(module: tvm.IRModule) -> dict[str, list[int]]:
    """List, for each kernel, the places of the arguments that are constants in all of its calls."""
    found: dict[str, set[int]] = {}
    for function in module.functions.values():
        for value in _values(function):
            if (name := called_kernel(value)) is not None:
                fields = enumerate(value.args[1].fields)
                constant = {place for place, field in fields if constant_of(field) is not None}
                found[name] = found.get(name, constant) & constant
    return {name: sorted(places) for name, places in found.items()}


def _values(function: Any) -> Iterator[Any]:
    for block in function.body.blocks if isinstance(function, relax.Function) else ():
        for binding in block.bindings:
            yield binding.value


def _constant(expr: Any) -> Array:
    values = constant_of(expr)
    assert values is not None
    return values


def _with_values(function: relax.Function, replace: Callable[[Any], Any]) -> relax.Function:
    blocks = [
        type(block)([
            relax.VarBinding(binding.var, replace(binding.value))
            if isinstance(binding, relax.VarBinding) else binding
            for binding in block.bindings
        ])
        for block in function.body.blocks
    ]  # fmt: skip
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(
        function.params, body, function.ret_ty, function.is_pure, function.attrs, function.span
    )


def _reading_in_place(function: tirx.PrimFunc, places: list[int]) -> tirx.PrimFunc:
    """Give a kernel the starts of some of its parameters in their places."""
    parameters = list(function.params)
    declared = []
    for place in places:
        start = tirx.Var(f"{parameters[place].name}_start", "int64")
        declared.append(tirx.DeclBuffer(parameters[place], data=constant_at(start)))
        parameters[place] = start
    if not isinstance(function.body, s_tir.SBlockRealize):
        body = reading_constants(tirx.SeqStmt([*declared, function.body]))
        return tirx.PrimFunc(parameters, body, function.ret_type, function.attrs)
    root = function.body.block
    body = reading_constants(tirx.SeqStmt([*declared, root.body]))
    realize = with_root(function.body, body, root.alloc_buffers)
    return tirx.PrimFunc(parameters, realize, function.ret_type, function.attrs)
