"""Reading and rebuilding the one Relax function of a network: what every pass here stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir.expr import GenericConst

Array = np.ndarray[Any, Any]
Current = Callable[["relax.Var"], Any]
Readers = Mapping["relax.Var", Sequence["relax.Var | None"]]
Rewrite = Callable[[relax.BlockBuilder, "relax.Var", Any, Current], Any]

ENTRY = "main"
#: Bytes of a constant that is made of a smaller one, at most.
MOST_EVALUATED = 1 << 24


def operator(expr: Any) -> str:
    """Name of the Relax operator that an expression calls, ``""`` where it calls none."""
    if isinstance(expr, tvm.ir.Call) and isinstance(expr.op, tvm.ir.Op):
        return str(expr.op.name)
    return ""


def called_kernel(value: Any) -> str | None:
    """Name of the TIR kernel that an expression calls, ``None`` where it calls none."""
    calls = ("relax.call_tir", "relax.call_tir_inplace")
    return str(value.args[0].name_hint) if operator(value) in calls else None


def shape_of(expr: Any) -> tuple[int, ...] | None:
    """Shape of a tensor expression; ``None`` for tuples, scalars and unknown extents."""
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        return None
    extents = list(ty.shape) if isinstance(ty.shape, relax.ShapeExpr) else None
    if extents is None:
        return None
    try:
        return tuple(int(extent) for extent in extents)
    except (TypeError, ValueError):
        return None


def is_depthwise(value: Any) -> bool:
    """Whether a value is a convolution of each channel apart, one output channel for each."""
    if operator(value) != "relax.nn.conv2d":
        return False
    axis = str(value.attrs.data_layout).index("C")
    before, after = shape_of(value.args[0]), shape_of(value)
    groups = int(value.attrs.groups)
    return before is not None and after is not None and before[axis] == groups == after[axis]


def is_pointwise(value: Any) -> bool:
    """Whether a value is a convolution with windows of one pixel."""
    if operator(value) != "relax.nn.conv2d":
        return False
    layout, shape = str(value.attrs.kernel_layout), shape_of(value.args[1])
    return shape is not None and shape[layout.index("H")] == 1 == shape[layout.index("W")]


def constant_of(expr: Any) -> Array | None:
    """Value of a constant tensor, ``None`` where the expression is not one."""
    if isinstance(expr, GenericConst):
        return np.asarray(expr.value.numpy())
    return None


def is_permutation(order: Array, channels: int) -> bool:
    """Whether an order names each of so many channels once."""
    return np.array_equal(np.sort(order), np.arange(channels))


def constant(value: Array) -> Any:
    """Make a constant tensor of an array, its type kept (`relax.const` narrows 64 bits to 32)."""
    # Not `np.ascontiguousarray`: it gives a number an axis. Of an array TVM makes two copies.
    tensor = tvm.runtime.tensor(np.asarray(value, order="C"))
    return relax.const(tensor, str(value.dtype))


def evaluated(expr: Any) -> Any:
    """Evaluate a range, a moved constant or what is taken of one; anything else stays as it is."""
    name = operator(expr)
    if name == "relax.arange":
        bounds: list[Any] = [getattr(bound, "value", None) for bound in expr.args]
        fixed = all(isinstance(bound, int | float) for bound in bounds)
        return constant(np.arange(*bounds, dtype=str(expr.attrs.dtype))) if fixed else expr
    if name not in ("relax.permute_dims", "relax.reshape", "relax.take"):
        return expr
    value = constant_of(expr.args[0])
    if value is None:
        return expr
    if name == "relax.take":
        return _taken(expr, value)
    if name == "relax.permute_dims":
        axes = expr.attrs.axes
        return constant(np.transpose(value, axes and [int(a) for a in axes]))
    return constant(value.reshape([int(extent) for extent in expr.args[1]]))


def _taken(take: Any, value: Array) -> Any:
    """Evaluate what is taken of a constant by another, where no index is out of range."""
    index, axis = constant_of(take.args[1]), take.attrs.axis
    if index is None or axis is None:
        return take
    extent, bytes_taken = value.shape[int(axis)], index.size * value.nbytes
    within = index.size > 0 and index.min() >= 0 and index.max() < extent
    if not within or bytes_taken > extent * MOST_EVALUATED:
        return take
    return constant(np.take(value, index, int(axis)))


def bindings_of(module: tvm.IRModule) -> Iterator[tuple[relax.Var, Any]]:
    """Yield each variable of the entry function with the expression bound to it, in order."""
    for block in module[ENTRY].body.blocks:
        for binding in block.bindings:
            yield binding.var, binding.value


def count_uses(module: tvm.IRModule) -> dict[relax.Var, int]:
    """How many times each variable is read, the function's result included."""
    return {variable: len(readers) for variable, readers in readers_of(module).items()}


def readers_of(module: tvm.IRModule) -> Readers:
    """List who reads each variable, in order; ``None`` is the function's result."""
    readers: dict[relax.Var, list[relax.Var | None]] = {}

    def visit(expr: Any, reader: relax.Var | None) -> None:
        def note(read: relax.Var) -> relax.Var:
            readers.setdefault(read, []).append(reader)
            return read

        substitute(expr, note)

    for variable, value in bindings_of(module):
        visit(value, variable)
    visit(module[ENTRY].body.body, None)
    return readers


def fresh_variables(module: tvm.IRModule) -> set[relax.Var]:
    """List the variables that stand for memory which no other variable stands for."""
    fresh: set[relax.Var] = set()
    taken: set[tuple[relax.Var, int]] = set()

    def forget(read: relax.Var) -> relax.Var:
        fresh.discard(read)
        return read

    for variable, value in bindings_of(module):
        if called_kernel(value) is not None:
            fresh.add(variable)
        elif isinstance(value, relax.TupleGetItem) and value.tuple_value in fresh:
            part = (value.tuple_value, int(value.index))
            if part not in taken:
                fresh.add(variable)
            taken.add(part)
        else:
            # Such as another shape of the same memory.
            substitute(value, forget)
    return fresh


def is_last_read(readers: Readers, variable: relax.Var, reader: relax.Var) -> bool:
    """Whether a reader reads a variable once, and nobody does after it."""
    last = readers[variable][-1]
    return last is not None and last.same_as(reader) and readers[variable].count(reader) == 1


def substitute(expr: Any, replace: Callable[[relax.Var], Any]) -> Any:
    """Rebuild an expression with every variable in it replaced."""
    if isinstance(expr, relax.Var):
        return replace(expr)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([substitute(field, replace) for field in expr.fields])
    if isinstance(expr, relax.TupleGetItem):
        return relax.TupleGetItem(substitute(expr.tuple_value, replace), expr.index)
    if isinstance(expr, tvm.ir.Call):
        arguments = [substitute(argument, replace) for argument in expr.args]
        return tvm.ir.Call(expr.op, arguments, expr.attrs, expr.ty_args)
    return expr


def rebuild(
    module: tvm.IRModule,
    emit: Callable[[relax.BlockBuilder, relax.Var, Any], Any],
    finish: Callable[[relax.BlockBuilder, Any], Any],
) -> tvm.IRModule:
    """Write the entry function anew, binding by binding.

    Parameters
    ----------
    module : tvm.IRModule
        The module whose function ``main`` is rebuilt; its other functions are kept.
    emit : Callable
        Called with the block builder, the old variable and the old value of each binding.
    finish : Callable
        Called with the block builder and the old result; returns the new result.

    Returns
    -------
    tvm.IRModule
        With dead bindings removed.
    """
    function = module[ENTRY]
    builder = relax.BlockBuilder(module)
    with builder.function("rebuilt", list(function.params), attrs=dict(function.attrs or {})):
        with builder.dataflow():
            for variable, value in bindings_of(module):
                emit(builder, variable, value)
            output = builder.emit_output(finish(builder, function.body.body))
        builder.emit_func_output(output)
    rebuilt = builder.get()
    new_function = rebuilt["rebuilt"].with_attr("global_symbol", ENTRY)
    functions = {
        gv: f for gv, f in rebuilt.functions.items() if gv.name_hint not in ("rebuilt", ENTRY)
    }
    functions[module.get_global_var(ENTRY)] = new_function
    result = tvm.IRModule(functions, attrs=module.attrs)
    return relax.transform.DeadCodeElimination([ENTRY])(result)


def rewrite(
    module: tvm.IRModule, replace: Rewrite, result_of: Callable[[Any], Any] = lambda result: result
) -> tvm.IRModule:
    """Rebuild the entry function with some values replaced.

    Parameters
    ----------
    module : tvm.IRModule
        What to rewrite.
    replace : Callable
        Called with the block builder, a variable, its old value and ``current``, which gives what
        stands for an old variable now. Returns a call or tuple to bind, something that is already
        bound or constant to use in its place, or ``None`` to keep the value.
    result_of : Callable
        Called with the old result; returns what is the result now, of old variables.

    Returns
    -------
    tvm.IRModule
        With dead bindings removed.
    """
    replaced: dict[relax.Var, Any] = {}

    def current(variable: relax.Var) -> Any:
        return replaced.get(variable, variable)

    def emit(builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        new = replace(builder, variable, value, current)
        if new is None:
            new = substitute(value, current)
        binds = isinstance(new, tvm.ir.Call | relax.Tuple | relax.TupleGetItem)
        replaced[variable] = builder.emit(new) if binds else new

    return rebuild(module, emit, lambda _, result: substitute(result_of(result), current))
