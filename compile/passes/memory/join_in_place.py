"""What a concatenation joins is written where it would put it.

Before::

    a = k1(x)                       # (1, h, w, 12)
    b = k2(y)                       # (1, h, w, 108)
    c = concat(a, b)                # relu of 120 channels

After::

    a = k1_into_concat(x)           # relu of channels 0 to 12 of (1, h, w, 120)
    c = k2_into_concat(y, a)        # relu of channels 12 to 120 of a, and c is a
    concat(k1(x), k2(y))            # still there for those who want each layer's answer

Schedules are those of `k1` and `k2`: only their last stores change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax, tirx
from tvm_ffi import structural_equal, structural_map, structural_visit

from shuffledeploy.compiler.ir.attributes import JOINED, JOINED_IN_PLACE, OF_KERNEL, kind_of
from shuffledeploy.compiler.ir.graph import (
    ENTRY,
    Current,
    bindings_of,
    called_kernel,
    readers_of,
    rewrite,
    shape_of,
    substitute,
)
from shuffledeploy.compiler.ir.tir import loads_in, with_parameters, with_values


@dataclasses.dataclass(frozen=True)
class _Join:
    """A call of a concatenation.

    Attributes
    ----------
    name : str
        Its kernel's.
    variable : relax.Var
        What it is bound to.
    parts : dict
        Its parts in the network's order, and which of its arguments each is.
    shape : tuple of int
        Of what it writes.
    """

    name: str
    variable: relax.Var
    parts: dict[relax.Var, int]
    shape: tuple[int, ...]

    def before(self, part: relax.Var) -> relax.Var | None:
        """Give the part that the network writes before another."""
        parts = list(self.parts)
        number = parts.index(part)
        return parts[number - 1] if number else None


def join_in_place(module: tvm.IRModule, unscheduled: Mapping[str, tirx.PrimFunc]) -> tvm.IRModule:
    """Let kernels write parts of a concatenation where they belong.

    Concatenations stay where a part is read elsewhere, too, comes from no kernel of ours or from
    another concatenation, or is gathered by a table of channels, and where another tensor is added.

    Parameters
    ----------
    module : tvm.IRModule
        Calls of scheduled kernels.
    unscheduled : mapping
        The same kernels before they were scheduled, by name.

    Returns
    -------
    tvm.IRModule
        Answers as before, bit for bit. New kernels are marked with that whose part they write, the
        entry function with the concatenations that are not called (see
        :mod:`compiler.ir.attributes`). Functions beside the entry are left as they were.
    """
    functions = {gv.name_hint: f for gv, f in module.functions.items()}
    stores = {name: found for name, f in unscheduled.items() if (found := _stores(f))}
    joins = _find_joins(module, functions, stores)
    if not joins:
        return module
    by_part = {part: join for join in joins for part in join.parts}
    by_variable = {join.variable: join for join in joins}
    references: dict[str, Any] = {}

    def replace(
        builder: relax.BlockBuilder, variable: relax.Var, value: Any, current: Current
    ) -> Any:
        if variable in by_variable:
            return current(list(by_variable[variable].parts)[-1])
        if variable not in by_part:
            return None
        join, kernel = by_part[variable], called_kernel(value)
        assert kernel is not None
        number = join.parts[variable]
        name = f"{kernel}_into_{join.name}_{number}"
        if name not in references:
            function = into_slice(functions[kernel], stores[join.name][number], join.shape)
            references[name] = builder.add_func(function.with_attr(OF_KERNEL, kernel), name)
        fields = list(substitute(value.args[1], current).fields)
        written = relax.TensorType(join.shape, str(variable.ty.dtype))
        before = join.before(variable)
        if before is None:
            return relax.call_tir(references[name], relax.Tuple(fields), written)
        fields.append(current(before))
        return relax.op.call_tir_inplace(
            references[name], relax.Tuple(fields), len(fields) - 1, written
        )

    result = rewrite(module, replace)
    entry = result[ENTRY].with_attr(JOINED_IN_PLACE, [join.name for join in joins])
    result.update_func(result.get_global_var(ENTRY), entry)
    return result


def _find_joins(
    module: tvm.IRModule, functions: Mapping[str, Any], stores: Mapping[str, list[Any]]
) -> list[_Join]:
    """Find the concatenations all of whose parts can be written in place."""
    readers = readers_of(module)
    values = dict(bindings_of(module))
    places = {variable: place for place, variable in enumerate(values)}
    found = []
    for variable, value in values.items():
        name, shape = called_kernel(value), shape_of(variable)
        if name is None or name not in stores or shape is None:
            continue
        fields = value.args[1].fields[: len(stores[name])]
        parts = {part: number for number, part in enumerate(fields) if part in values}
        if len(parts) == len(fields) and all(
            len(readers[part]) == 1
            and _writes_only(functions.get(called_kernel(values[part]) or ""))
            for part in parts
        ):
            order = sorted(parts, key=lambda part: places[part])
            found.append(_Join(name, variable, {part: parts[part] for part in order}, shape))
    return found


def _stores(function: tirx.PrimFunc) -> list[Any]:
    """List what an unscheduled concatenation does with an element of each of its parts.

    Nothing of another kernel, nor where more is read for an element than that of a part.
    """
    if kind_of(function) != JOINED:
        return []
    *inputs, _ = function.params
    stores: list[Any] = []

    def on_store(store: Any, visitor: Any) -> None:
        stores.append(store)
        visitor.default_visit(store)

    structural_visit(function.body, [(tirx.BufferStore, on_store)])
    read = [loads_in(store.value) for store in stores]
    # Some epilogues read their element twice.
    each = len(read) == len(inputs) and all(
        loads[0].source.same_as(parameter)
        and all(structural_equal(load, loads[0]) for load in loads)
        for loads, parameter in zip(read, inputs, strict=True)
    )
    return stores if each else []


def _writes_only(function: Any) -> bool:
    """Whether a function is a kernel of ours that computes, and never reads what it wrote."""
    if kind_of(function) in ("", JOINED):
        return False
    output = function.params[-1]
    return not any(load.source.same_as(output) for load in loads_in(function.body))


def into_slice(function: tirx.PrimFunc, joining: Any, shape: tuple[int, ...]) -> tirx.PrimFunc:
    """Let a scheduled kernel write its output as a slice of a larger one.

    Parameters
    ----------
    function : tirx.PrimFunc
        The kernel; its output is NHWC.
    joining : BufferStore
        What the concatenation does with an element of that output.
    shape : tuple of int
        Of what the concatenation writes.

    Returns
    -------
    tirx.PrimFunc
        The same parameters, but for the output.
    """
    *inputs, output = function.params
    whole = tirx.decl_buffer(shape, str(output.dtype), str(output.name))
    load, *_ = loads_in(joining.value)
    # A part's element [n, y, x, c] goes to [n, y, x, c + start].
    start = tvm.sym.Analyzer().simplify(joining.indices[-1] - load.indices[-1])

    def finished(value: Any) -> Any:
        taken = tirx.Var("taken", str(output.dtype))
        body = structural_map(joining.value, (tvm.ir.TensorLoad, lambda _: taken))
        return with_values(body, {taken: value})

    def store(found: Any) -> Any:
        if not found.buffer.same_as(output):
            return found
        *at, channel = found.indices
        return tirx.BufferStore(whole, finished(found.value), [*at, channel + start])

    def region(found: Any) -> Any:
        if not found.source.same_as(output):
            return found
        *at, channels = found.region
        moved = tvm.ir.Range.from_min_extent(channels.min + start, channels.extent)
        return tirx.BufferRegion(whole, [*at, moved])

    body = structural_map(function.body, (tirx.BufferStore, store))
    body = structural_map(body, (tvm.ir.TensorRegion, region))
    return with_parameters(function, [*inputs, whole], body)
