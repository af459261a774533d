"""Neighbouring calls of kernels become one call, in which threads meet after each of them.

Before::

    main(x):
        a = alloc_tensor(s, 0, ...)
        k1(x, 0, a)                                 # each launches threads, and waits for them
        b = alloc_tensor(s, 512, ...)
        k2(a, 128, b)

After::

    main(x):
        a = alloc_tensor(s, 0, ...)
        b = alloc_tensor(s, 512, ...)
        launch_of_2(x, a, b)

    launch_of_2(x, a, b):
        launch:                                     # in each thread
            for part in parallel(2): k1_part(x, 0, a, part)
            meet
            for part in parallel(2): k2_part(a, 128, b, part)

To meet costs a third of a launch. Kernels that are not shared out are computed by the first thread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tvm
from tvm import relax, tirx

from shuffledeploy.compiler.ir.attributes import PART, PARTS, attribute
from shuffledeploy.compiler.ir.constants import constant_at, reading_constants
from shuffledeploy.compiler.ir.graph import ENTRY, bindings_of, operator
from shuffledeploy.compiler.ir.tir import is_tensor, moved
from shuffledeploy.compiler.ir.tvm_edges import in_each_thread, then_meet
from shuffledeploy.compiler.threads.parts import part_call

# What only says where a tensor stands: it may come before calls that it stood behind.
_PLACES = (
    "relax.memory.alloc_storage", "relax.memory.alloc_tensor", "relax.builtin.alloc_tensor",
    "relax.reshape",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _SharedCall:
    """A call of a function that has a part for each thread.

    Attributes
    ----------
    variable : relax.Var
        What it is bound to, which nobody reads.
    value : Call
        The call.
    function : tirx.PrimFunc
        What it calls; parameters that are numbers say where a constant starts.
    arguments : tuple
        Of the call, tensors by their first names.
    """

    variable: relax.Var
    value: Any
    function: tirx.PrimFunc
    arguments: tuple[Any, ...]


def launch_once(module: tvm.IRModule) -> tvm.IRModule:
    """Let neighbouring calls share a launch of threads.

    Parameters
    ----------
    module : tvm.IRModule
        An entry function of which TVM has planned the memory, and finished kernels.

    Returns
    -------
    tvm.IRModule
        Functions beside the entry are left as they were.
    """
    functions = {variable.name_hint: f for variable, f in module.functions.items()}
    if not any(attribute(function, PART) is not None for function in functions.values()):
        return module
    builder = relax.BlockBuilder(module)
    bindings: list[Any] = []
    waiting: list[_SharedCall] = []
    values = dict(bindings_of(module))

    def launch() -> None:
        if len(waiting) > 1:
            bindings.append(_one_call(builder, waiting))
        else:
            bindings.extend(relax.VarBinding(call.variable, call.value) for call in waiting)
        waiting.clear()

    for variable, value in bindings_of(module):
        called = value.op if isinstance(value, tvm.ir.Call) else None
        function = functions[called.name_hint] if isinstance(called, tvm.ir.GlobalVar) else None
        if function is not None and attribute(function, PART) is not None:
            arguments = tuple(_origin(argument, values) for argument in value.args)
            waiting.append(_SharedCall(variable, value, function, arguments))
            continue
        if called is not None and operator(value) not in _PLACES:
            launch()
        bindings.append(relax.VarBinding(variable, value))
    launch()
    entry = module[ENTRY]
    body = relax.SeqExpr([relax.BindingBlock(bindings)], entry.body.body)
    result = builder.get()
    result.update_func(
        result.get_global_var(ENTRY),
        relax.Function(entry.params, body, entry.ret_ty, entry.is_pure, entry.attrs, entry.span),
    )
    return result


def _origin(expr: Any, values: Mapping[relax.Var, Any]) -> Any:
    """Give the first name of a tensor that has several, or stands in a tuple."""
    value = values.get(expr) if isinstance(expr, relax.Var) else expr
    if isinstance(value, relax.TupleGetItem):
        held = _origin(value.tuple_value, values)
        held = values.get(held, held)
        is_tuple = isinstance(held, relax.Tuple)
        return _origin(held.fields[int(value.index)], values) if is_tuple else expr
    return _origin(value, values) if isinstance(value, relax.Var) else expr


def _one_call(builder: relax.BlockBuilder, calls: Sequence[_SharedCall]) -> relax.VarBinding:
    """Write the function that makes some calls, and call it."""
    tensors: list[Any] = []
    buffers: list[Any] = []
    steps = []
    for call in calls:
        pointers = []
        module = builder.get()
        part = module.get_global_var(str(attribute(call.function, PART)))
        types = [p.ty.element_type.dtype for p in module[part].params[:-1]]
        for argument, parameter, dtype in zip(
            call.arguments, call.function.params, types, strict=True
        ):
            if not is_tensor(parameter):
                start = tirx.IntImm("int64", int(argument))
                pointers.append(moved(constant_at(start), 0, str(dtype)))
                continue
            known = [place for place, tensor in enumerate(tensors) if tensor.same_as(argument)]
            if not known:
                shape = [int(extent) for extent in parameter.shape]
                name = f"tensor_{len(tensors)}"
                buffers.append(tirx.decl_buffer(shape, str(parameter.dtype), name))
                tensors.append(argument)
            pointers.append(buffers[known[0] if known else -1].data)
        steps.append(part_call(part, pointers, int(attribute(call.function, PARTS))))
    *first, last = steps
    body = in_each_thread(tirx.SeqStmt([*(then_meet(step) for step in first), last]))
    function = tirx.PrimFunc(buffers, reading_constants(body)).with_attr({"s_tir": True})
    reference = builder.add_func(function, f"launch_of_{len(calls)}")
    value = tvm.ir.Call(reference, tensors, ret_ty=calls[0].value.ty)
    return relax.VarBinding(calls[-1].variable, value)
