"""Which operators the kernels by TVM's own rules came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm import relax, tirx

from shuffledeploy.compiler.ir.attributes import OPERATORS
from shuffledeploy.compiler.ir.graph import bindings_of, called_kernel, operator

Rule = Callable[[relax.BlockBuilder, tvm.ir.Call], Any]


class KernelOrigins:
    """Notes the operators while rules make kernels of them and TVM fuses these.

    Kernels are marked once all is done: a mark would keep TVM from making one kernel of equal ones.
    """

    def __init__(self) -> None:
        self._operators: dict[str, set[str]] = {}

    def noting(self, module: tvm.IRModule, own: Mapping[str, Rule]) -> dict[str, Rule]:
        """Give a rule for each operator of a module, its own where there is one, else TVM's."""
        names = {operator(value) for _, value in bindings_of(module)} - {""}
        rules = {name: own.get(name) or tvm.ir.Op.get(name).get_attr("FLegalize") for name in names}
        return {name: self._noting(name, rule) for name, rule in rules.items() if rule is not None}

    def _noting(self, name: str, rule: Rule) -> Rule:
        def write(builder: relax.BlockBuilder, call: tvm.ir.Call) -> Any:
            before = {variable.name_hint for variable in builder.get().functions}
            written = rule(builder, call)
            kernels = {variable.name_hint for variable in builder.get().functions} - before
            called = called_kernel(written)
            for kernel in kernels if called is None else kernels | {called}:
                self._operators.setdefault(kernel, set()).add(name.removeprefix("relax."))
            return written

        return write

    def note_fused(self, module: tvm.IRModule) -> tvm.IRModule:
        """Let functions of several kernels have the operators of all; a pass between TVM's."""
        for variable, function in module.functions.items():
            if isinstance(function, relax.Function) and variable.name_hint != "main":
                inside = [
                    called_kernel(binding.value)
                    for block in function.body.blocks
                    for binding in block.bindings
                ]
                found = [self._operators.get(kernel or "", set()) for kernel in inside]
                self._operators[variable.name_hint] = set().union(*found)
        return module

    def mark(self, module: tvm.IRModule) -> tvm.IRModule:
        """Write on each kernel which operators it came from."""
        functions = {
            variable: function.with_attr(OPERATORS, sorted(self._operators[variable.name_hint]))
            if isinstance(function, tirx.PrimFunc) and variable.name_hint in self._operators
            else function
            for variable, function in module.functions.items()
        }
        return tvm.IRModule(functions, attrs=module.attrs)
