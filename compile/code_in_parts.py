"""A program of the virtual machine in two parts, to be compiled at once.

Before::

    main: k1(x, y), strips(y, z)      k1, strips -> rows, rows

After::

    main: k1(x, y), "strips"(y, z)    k1              strips -> rows, rows

The machine finds the second part's kernels by their names in the library. Kernels that call others
stay with them.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import GlobalVar
from tvm_ffi import structural_map, structural_visit, structural_walk

from shuffledeploy.compiler.ir.connected_sets import connected

#: Kernels from which LLVM has so much to do that a second thread is worth its start.
FEWEST_KERNELS = 6
# What LLVM and TVM take for a kernel beside its stores, in stores: the checks of its arguments.
_STORES_A_KERNEL = 250


def in_two_parts(module: tvm.IRModule) -> tuple[tvm.IRModule, tvm.IRModule | None]:
    """Cut a program in two parts of about as much code.

    Parameters
    ----------
    module : tvm.IRModule
        Relax functions of calls, and the kernels that they call.

    Returns
    -------
    tuple
        The Relax functions with some kernels; the other kernels, or ``None`` where there are few,
        or all call each other.
    """
    kernels = {gv: f for gv, f in module.functions.items() if isinstance(f, tirx.PrimFunc)}
    chosen = _half(_together(kernels)) if len(kernels) >= FEWEST_KERNELS else {}
    if not chosen:
        return module, None
    names = {gv.name_hint for gv in chosen}

    def by_name(variable: GlobalVar) -> Any:
        return relax.ExternFunc(variable.name_hint) if variable.name_hint in names else variable

    rest = {
        gv: structural_map(f, (GlobalVar, by_name)) if isinstance(f, relax.Function) else f
        for gv, f in module.functions.items()
        if gv not in chosen
    }
    return tvm.IRModule(rest, attrs=module.attrs), tvm.IRModule(chosen)


def _together(kernels: dict[GlobalVar, tirx.PrimFunc]) -> list[dict[GlobalVar, tirx.PrimFunc]]:
    """Group kernels that call each other, over others or directly."""
    groups = connected({gv.name_hint, *_called(f)} for gv, f in kernels.items())
    return [{gv: f for gv, f in kernels.items() if gv.name_hint in group} for group in groups]


def _called(function: tirx.PrimFunc) -> set[str]:
    names: set[str] = set()
    structural_walk(function.body, ((GlobalVar, lambda found: names.add(found.name_hint)),))
    return names


def _half(groups: list[dict[GlobalVar, tirx.PrimFunc]]) -> dict[GlobalVar, tirx.PrimFunc]:
    """Choose groups that take about half of the time."""
    sizes = [sum(_STORES_A_KERNEL + _size(f) for f in group.values()) for group in groups]
    chosen: dict[GlobalVar, tirx.PrimFunc] = {}
    here, there = 0, 0
    for place in sorted(range(len(groups)), key=lambda place: -sizes[place]):
        if here < there:
            chosen |= groups[place]
            here += sizes[place]
        else:
            there += sizes[place]
    return chosen


def _size(function: tirx.PrimFunc) -> int:
    """Count a kernel's stores, each as often as it is written out."""
    total, times = 0, 1

    def on_loop(loop: tirx.For, visitor: Any) -> None:
        nonlocal times
        written = int(loop.extent) if loop.kind == tirx.ForKind.UNROLLED else 1
        times *= written
        visitor.default_visit(loop)
        times //= written

    def on_store(store: tirx.BufferStore, visitor: Any) -> None:
        nonlocal total
        total += times
        visitor.default_visit(store)

    structural_visit(function.body, [(tirx.For, on_loop), (tirx.BufferStore, on_store)])
    return total
