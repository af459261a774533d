"""Reading and rewriting the TIR of one kernel: loads, tiles, values, parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir import PointerType, PrimType
from tvm_ffi import structural_equal, structural_map, structural_visit, structural_walk

#: Scope of register tiles that TVM would else let share the memory of larger buffers.
LOCAL = "local"
#: Type of indices that are known to be small, and the largest of them.
SMALL_INDEX, MOST_SMALL = "uint16", (1 << 16) - 1

_IF_THEN_ELSE = tirx.if_then_else(tirx.Var("holds", "bool"), 1, 0).op


def with_values(node: Any, values: Mapping[tirx.Var, Any]) -> Any:
    """Write an expression or a statement with values in the places of variables.

    A buffer is a variable, too; another takes its place.
    """
    return structural_map(
        node,
        (tirx.Var, lambda found: next((v for k, v in values.items() if found.same_as(k)), found)),
    )


def small_index(value: Any, extent: Any) -> Any:
    """Write an index, 0 or more and below an extent, so that LLVM knows how large it can become.

    Sums and multiples of it are then known not to wrap, and LLVM folds them into addresses. Of an
    index that begins where a parameter says it computes each address instead, and spills sums.
    """
    if int(extent) > MOST_SMALL + 1:
        return value
    return tirx.Cast("int32", tirx.Cast(SMALL_INDEX, value))


def loads_in(node: Any) -> list[Any]:
    """List what is read in an expression or a statement."""
    loads: list[Any] = []

    def on_load(load: Any, visitor: Any) -> None:
        loads.append(load)
        visitor.default_visit(load)

    structural_visit(node, [(tvm.ir.TensorLoad, on_load)])
    return loads


def picked(vectors: Sequence[Any], lanes: Iterable[int]) -> Any:
    """Write a vector of some lanes of others, which are counted through."""
    return tirx.Shuffle(list(vectors), [tirx.IntImm("int32", lane) for lane in lanes])


def is_conditional(value: Any) -> bool:
    """Whether an expression computes only one of two values, as a condition says."""
    return isinstance(value, tvm.ir.Call) and bool(_IF_THEN_ELSE == value.op)


def tiles_in(body: Any) -> list[Any]:
    """List the buffers of a lowered function's own memory, under all of their names.

    Where TVM joins several in one memory, each has a buffer of its own there.
    """
    own: list[Any] = []
    structural_walk(body, (tirx.AllocBuffer, lambda node: own.append(node.buffer)))
    memory = [buffer.data for buffer in own]

    def on_view(node: tirx.DeclBuffer) -> None:
        if any(structural_equal(node.data, data) for data in memory):
            own.append(node.buffer)

    structural_walk(body, (tirx.DeclBuffer, on_view))
    return own


def with_parameters(function: tirx.PrimFunc, parameters: Sequence[Any], body: Any) -> tirx.PrimFunc:
    """Write a kernel with other parameters and another body, its attributes but for its name."""
    attributes = {key: v for key, v in function.attrs.items() if key != "global_symbol"}
    return tirx.PrimFunc(list(parameters), body).with_attr(attributes)


def as_pointers(function: tirx.PrimFunc) -> tuple[list[Any], list[Any]]:
    """Give pointers in the places of a kernel's tensors.

    Returns
    -------
    tuple
        The parameters, of which those that are numbers stay as they are; and the statements that
        make tensors of the pointers.
    """
    parameters, views = list(function.params), []
    for place, parameter in enumerate(function.params):
        if is_tensor(parameter):
            parameters[place] = pointer(f"{parameter.name}_data", str(parameter.dtype))
            views.append(tirx.DeclBuffer(parameter, data=parameters[place]))
    return parameters, views


def is_tensor(parameter: Any) -> bool:
    """Whether a parameter of a kernel is a tensor; else it is a number."""
    return isinstance(parameter.ty, tirx.BufferType)


def pointer(name: str, dtype: str = "float32") -> tirx.Var:
    """Make a variable that points to elements of a type."""
    return tirx.Var(name, PointerType(PrimType(dtype)))


def moved(start: Any, offset: Any, dtype: str = "float32") -> Any:
    """Write a pointer to elements of a type, so many bytes (64 bits) behind another."""
    if not isinstance(offset, int):
        start = tirx.handle_add_byte_offset(start, offset)
    elif offset:
        start = tirx.handle_add_byte_offset(start, tirx.IntImm("int64", offset))
    return tirx.reinterpret(PointerType(PrimType(dtype)), start)


def tensor_bytes(shape: Iterable[Any], dtype: Any) -> int:
    """Give the bytes of a tensor of some type."""
    bits = tvm.DataType(str(dtype)).bits
    return math.prod(int(extent) for extent in shape) * max(bits // 8, 1)


def with_root(realize: Any, body: Any, allocated: Sequence[Any]) -> Any:
    """Write a kernel's root block with another body, and with other buffers that it allocates."""
    root = realize.block
    block = s_tir.SBlock(
        root.iter_vars, root.reads, root.writes, root.name_hint, body, root.init, list(allocated),
        root.match_buffers, root.annotations,
    )  # fmt: skip
    return s_tir.SBlockRealize(realize.iter_values, realize.predicate, block)
