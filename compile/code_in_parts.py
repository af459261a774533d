"""A program of the virtual machine in parts, to be compiled at once, and kept.

Before::

    main: k1(x, y), strips(y, z)      k1, strips -> rows, rows

After::

    main: k1(x, y), "strips"(y, z); k1      strips -> rows, rows

The machine finds kernels by their names in the library. Kernels that call others stay with them,
and one kernel with the Relax functions: TVM makes no library of what has no code.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import GlobalVar
from tvm_ffi import structural_map, structural_visit, structural_walk

from shuffledeploy.compiler.ir.connected_sets import connected

Kernels = dict[GlobalVar, tirx.PrimFunc]


def in_parts(module: tvm.IRModule) -> tuple[tvm.IRModule, list[tvm.IRModule]]:
    """Part a program from its kernels, and these from each other.

    Parameters
    ----------
    module : tvm.IRModule
        Relax functions of calls, and the kernels that they call.

    Returns
    -------
    tuple
        The Relax functions, which call kernels by name, with the smallest kernel; the others, each
        with those that it calls, those first that take long to compile.
    """
    kernels = {gv: f for gv, f in module.functions.items() if isinstance(f, tirx.PrimFunc)}
    parts = sorted(_together(kernels), key=lambda part: -sum(map(_size, part.values())))
    own = parts.pop() if parts else {}

    def by_name(variable: GlobalVar) -> Any:
        return relax.ExternFunc(variable.name_hint) if variable.name_hint in apart else variable

    apart = {variable.name_hint for part in parts for variable in part}
    rest = {
        gv: f if isinstance(f, tirx.PrimFunc) else structural_map(f, (GlobalVar, by_name))
        for gv, f in module.functions.items()
        if gv in own or gv not in kernels
    }
    return tvm.IRModule(rest, attrs=module.attrs), [tvm.IRModule(part) for part in parts]


def _together(kernels: Kernels) -> list[Kernels]:
    """Group kernels that call each other, over others or directly."""
    groups = connected({gv.name_hint, *_called(f)} for gv, f in kernels.items())
    return [{gv: f for gv, f in kernels.items() if gv.name_hint in group} for group in groups]


def _called(function: tirx.PrimFunc) -> set[str]:
    names: set[str] = set()
    structural_walk(function.body, ((GlobalVar, lambda found: names.add(found.name_hint)),))
    return names


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
