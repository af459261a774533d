"""Reading and rewriting the TIR of one kernel: loads, tiles, values, parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_equal, structural_map, structural_visit, structural_walk


def with_values(node: Any, values: Mapping[tirx.Var, Any]) -> Any:
    """Write an expression or a statement with values in the places of variables.

    A buffer is a variable, too; another takes its place.
    """
    return structural_map(
        node,
        (tirx.Var, lambda found: next((v for k, v in values.items() if found.same_as(k)), found)),
    )


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
