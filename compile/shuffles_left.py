"""Which shuffles of a network stay passes over memory, and why nobody beside them takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import CONVOLUTION, kind_of
from shuffledeploy.compiler.ir.graph import (
    Readers,
    bindings_of,
    called_kernel,
    operator,
    readers_of,
)
from shuffledeploy.compiler.ir.inspection import is_shuffle, kernel_functions

_INPUT = "an input"
_CONSTANT = "a constant"
_ANSWER = "an answer"


def shuffles_left(module: tvm.IRModule) -> tuple[str, ...]:
    """Say of each call of a shuffle kernel who writes for it, who reads it, and what keeps it.

    Parameters
    ----------
    module : tvm.IRModule
        Calls of unscheduled kernels, as all graph passes leave them.

    Returns
    -------
    tuple of str
        One sentence a call, in order.
    """
    network = _Calls(dict(bindings_of(module)), readers_of(module), kernel_functions(module))
    return tuple(network.sentences())


@dataclasses.dataclass(frozen=True)
class _Calls:
    """What each variable is bound to, who reads it, and the kernels by name."""

    values: Mapping[relax.Var, Any]
    readers: Readers
    functions: Mapping[str, Any]

    def sentences(self) -> Iterator[str]:
        for variable, value in self.values.items():
            name = called_kernel(value)
            if name is None or not is_shuffle(self.functions[name]):
                continue
            tensor = value.args[1].fields[0]
            by = self._writer(tensor)
            others = [reader for reader in self._readers(tensor) if reader != name]
            reading = " and ".join(dict.fromkeys(self._readers(variable)))
            yield (
                f"{name} between {by} and {reading}: {self._writer_keeps(by, others)}, "
                f"and {self._readers_keep(variable)}"
            )

    def _writer(self, tensor: Any) -> str:
        """Name the kernel that writes a tensor, whatever shape it is given afterwards."""
        value: Any = self.values.get(tensor)
        if operator(value) == "relax.reshape":
            return self._writer(value.args[0])
        if isinstance(value, relax.TupleGetItem):
            return self._writer(value.tuple_value)
        return called_kernel(value) or (_INPUT if isinstance(tensor, relax.Var) else _CONSTANT)

    def _readers(self, variable: Any) -> list[str]:
        """Name the kernels that read a tensor, whatever shape it is given before."""
        found: list[str] = []
        for reader in self.readers.get(variable, ()):
            name = None if reader is None else called_kernel(self.values[reader])
            through = reader is not None and operator(self.values[reader]) == "relax.reshape"
            if name is None and through:
                found += self._readers(reader)
            else:
                found.append(name or _ANSWER)
        return found

    def _writer_keeps(self, writer: str, others: list[str]) -> str:
        if writer in (_INPUT, _CONSTANT):
            return "its order is the program's"
        if others:
            return f"{others[0]} reads the same tensor in another order"
        kind = kind_of(self.functions[writer])
        if not kind:
            return "TVM's own rules made the one"
        if kind == CONVOLUTION:
            return "a group's outputs stand together"
        return "the one writes in the order in which it reads"

    def _readers_keep(self, variable: relax.Var) -> str:
        names = self._readers(variable)
        if _ANSWER in names:
            return "an answer has the program's order"
        if any(not kind_of(self.functions[name]) for name in names):
            return "TVM's own rules made the other"
        return "the other reads channels as they lie"
