"""What a network's planned program calls, and where each tensor stands: read from Relax."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.constants import Constants
from shuffledeploy.compiler.ir.graph import ENTRY, bindings_of, constant_of, operator
from shuffledeploy.compiler.ir.memory_layout import aligned
from shuffledeploy.compiler.ir.tir import tensor_bytes
from shuffledeploy.model.errors import UsageError

WORKSPACE_BASE, CONSTANTS_BASE = "workspace", "constants"
# What TVM keeps out of the storages that it plans: it is returned.
_RETURNED = "relax.builtin.alloc_tensor"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor stands.

    Attributes
    ----------
    base : str
        ``workspace``, ``constants``, ``input_N`` or ``output_N``.
    offset : int
        Bytes behind it.
    """

    base: str
    offset: int = 0


@dataclasses.dataclass(frozen=True)
class PlannedCall:
    """A call of a kernel: tensors stand in places, all else is a number."""

    kernel: str
    arguments: tuple[Place | int, ...]


@dataclasses.dataclass(frozen=True)
class Copy:
    """A result that stands elsewhere than its caller wants it."""

    source: Place
    output: Place
    size: int


@dataclasses.dataclass(frozen=True)
class PlannedProgram:
    """A network's program.

    Attributes
    ----------
    inputs, outputs : int
        How many there are.
    calls : tuple of PlannedCall
        In order.
    copies : tuple of Copy
        What is left to do after them: an output that is an input, or that is returned twice.
    workspace : int
        Bytes.
    constants : Constants
        Of the library, with those that the program itself names.
    """

    inputs: int
    outputs: int
    calls: tuple[PlannedCall, ...]
    copies: tuple[Copy, ...]
    workspace: int
    constants: Constants


def planned_program(module: tvm.IRModule) -> PlannedProgram:
    """Read the entry function of a module of which TVM has planned the memory.

    Raises
    ------
    UsageError
        If it calls something that only TVM's runtime has.
    """
    return _Reader(module).read()


class _Reader:
    """Follows the bindings of the entry function, in order."""

    def __init__(self, module: tvm.IRModule) -> None:
        self._module = module
        self._constants = Constants.of(module)
        self._places: dict[relax.Var, Any] = {}
        self._workspace = 0
        self._returned = _returned_allocations(module)

    def read(self) -> PlannedProgram:
        function = self._module[ENTRY]
        for number, parameter in enumerate(function.params):
            self._places[parameter] = Place(f"input_{number}")
        calls = []
        for variable, value in bindings_of(self._module):
            if isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.GlobalVar):
                arguments = tuple(self._argument(argument) for argument in value.args)
                calls.append(PlannedCall(str(value.op.name_hint), arguments))
            else:
                self._places[variable] = self._place(variable, value)
        results = list(_flatten(self._of(function.body.body)))
        sizes = [tensor_bytes(ty.shape, ty.dtype) for ty in _flatten_types(function.ret_ty)]
        copies = tuple(
            Copy(place, wanted, size)
            for number, (place, size) in enumerate(zip(results, sizes, strict=True))
            if place != (wanted := Place(f"output_{number}"))
        )
        return PlannedProgram(
            len(function.params), len(results), tuple(calls), copies, self._workspace,
            self._constants,
        )  # fmt: skip

    def _argument(self, argument: Any) -> Place | int:
        if isinstance(argument, tvm.tirx.IntImm):
            return int(argument)
        place = self._of(argument)
        assert isinstance(place, Place)
        return place

    def _of(self, expr: Any) -> Any:
        """Tell the place of a tensor, or of each of a tuple."""
        if isinstance(expr, relax.Var):
            return self._places[expr]
        if isinstance(expr, relax.Tuple):
            return [self._of(field) for field in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            return self._of(expr.tuple_value)[int(expr.index)]
        if constant_of(expr) is not None:
            return Place(CONSTANTS_BASE, self._constants.start_of(expr.value))
        raise UsageError(
            f"a network without a runtime cannot hold a {type(expr).__name__}: compile it without"
            " --standalone"
        )

    def _place(self, variable: relax.Var, value: Any) -> Any:
        called = operator(value)
        if called == "relax.memory.alloc_storage":
            return self._reserve(math.prod(int(extent) for extent in value.args[0]))
        if called == "relax.memory.alloc_tensor":
            storage = self._of(value.args[0])
            return Place(storage.base, storage.offset + int(value.args[1]))
        if called == _RETURNED:
            if variable in self._returned:
                return Place(f"output_{self._returned[variable]}")
            return self._reserve(tensor_bytes(variable.ty.shape, variable.ty.dtype))
        if called == "relax.reshape":
            return self._of(value.args[0])
        if isinstance(value, tvm.ir.Call):
            name = called.removeprefix("relax.") or getattr(value.op, "global_symbol", "a function")
            raise UsageError(
                f"a network without a runtime cannot call {name}, which only TVM's runtime has:"
                " compile it without --standalone"
            )
        return self._of(value)

    def _reserve(self, size: int) -> Place:
        place = Place(WORKSPACE_BASE, self._workspace)
        self._workspace += aligned(size)
        return place


def _returned_allocations(module: tvm.IRModule) -> dict[relax.Var, int]:
    """List the allocations that are returned as they are, each with the number of its output."""
    values = dict(bindings_of(module))

    def origin(expr: Any) -> Any:
        while True:
            if isinstance(expr, relax.TupleGetItem):
                held = origin(expr.tuple_value)
                expr = held.fields[int(expr.index)] if isinstance(held, relax.Tuple) else held
                continue
            value: Any = values.get(expr) if isinstance(expr, relax.Var) else None
            if operator(value) == "relax.reshape":
                expr = value.args[0]
            elif isinstance(value, relax.Var | relax.Tuple | relax.TupleGetItem):
                expr = value
            else:
                return expr

    found: dict[relax.Var, int] = {}
    for number, result in enumerate(_flatten_fields(origin, module[ENTRY].body.body)):
        if isinstance(result, relax.Var) and operator(values.get(result)) == _RETURNED:
            found.setdefault(result, number)
    return found


def _flatten_fields(origin: Any, expr: Any) -> list[Any]:
    """List the origins of what an expression returns, tuples taken apart."""
    found = origin(expr)
    if isinstance(found, relax.Tuple):
        return [part for field in found.fields for part in _flatten_fields(origin, field)]
    return [found]


def _flatten(places: Any) -> list[Place]:
    if isinstance(places, Place):
        return [places]
    return [place for part in places for place in _flatten(part)]


def _flatten_types(ty: Any) -> list[Any]:
    if isinstance(ty, relax.TensorType):
        return [ty]
    return [tensor for field in ty.fields for tensor in _flatten_types(field)]
