"""What a kernel does, read from its code: used to count shuffles honestly and by tests."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_walk

from shuffledeploy.compiler.ir.attributes import JOINED, kind_of
from shuffledeploy.compiler.ir.tir import is_conditional, loads_in

_ARITHMETIC = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min, tirx.Cast)
# Images, groups, channels of a group, rows, columns.
FEWEST_AXES_OF_GROUPS = 5


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
            computes = computes or not is_conditional(node)
        else:
            computes = True

    structural_walk(function.body, (((*_ARITHMETIC, tvm.ir.Call), visit),))
    return not computes


def is_shuffle(function: tirx.PrimFunc) -> bool:
    """Whether a kernel is a pass over memory that brings channels into another order.

    That is one that gathers all channels by a table, swaps the two extents that channels were split
    into, or joins the pieces of a single tensor. A layout that changes as a whole, by a table too,
    a slice, a few elements picked by a table and a concatenation of several tensors are none;
    neither is a kernel of ours that reads or writes in another order while it computes.
    """
    kind = kind_of(function)
    if kind:
        return kind == JOINED and len(_tensors(function)) == 2 and moves_only(function)
    found = False

    def visit(store: Any) -> None:
        nonlocal found
        value = store.value
        if isinstance(value, tvm.ir.TensorLoad) and "float" in str(value.ty):
            found = found or _gathers_channels(store, value) or _swaps_groups(store, value)

    structural_walk(function.body, ((tirx.BufferStore, visit),))
    return found


def _gathers_channels(store: Any, load: Any) -> bool:
    """Whether all of an axis but the first is read by a table of one axis, the others in place."""
    written, read = list(store.indices), list(load.indices)
    gathered = [
        axis
        for axis, (index, extent) in enumerate(zip(read, load.source.shape, strict=True))
        if axis and any(_is_whole(table, int(extent)) for table in loads_in(index))
    ]
    if len(written) != len(read):
        return bool(gathered)
    moved = [axis for axis, pair in enumerate(zip(written, read, strict=True)) if not _same(pair)]
    return bool(gathered) and moved == gathered


def _is_whole(table: Any, extent: int) -> bool:
    """Whether a table of one axis names as many elements as there are."""
    return len(table.indices) == 1 and int(table.source.shape[0]) >= extent


def _same(indices: tuple[Any, Any]) -> bool:
    return bool(indices[0].same_as(indices[1]))


def _swaps_groups(store: Any, load: Any) -> bool:
    """Whether the second and third axis of a tensor of five and more change places, and no other.

    Of fewer axes they may be the positions and heads of an attention as well.
    """
    written, read = list(store.indices), list(load.indices)
    if len(written) != len(read) or len(read) < FEWEST_AXES_OF_GROUPS:
        return False
    read[1], read[2] = read[2], read[1]
    return all(w.same_as(r) for w, r in zip(written, read, strict=True))


def _tensors(function: tirx.PrimFunc) -> list[Any]:
    buffers = list(function.params)
    return [buffer for buffer in buffers if "float" in str(buffer.dtype)]
