"""A network's graph as text, one line a binding: `x1: f32[1,6,4,5] = nn.conv2d(x0, ...)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tvm
from tvm import relax, tirx
from tvm_ffi import structural_walk

from shuffledeploy.compiler.ir.graph import (
    ENTRY,
    called_kernel,
    constant_of,
    operator,
    shape_of,
)

#: Attributes that are told, and the value of each that goes without saying.
ATTRIBUTES: Mapping[str, Any] = {
    "groups": 1,
    "pool_size": None,
    "output_size": None,
    "strides": 1,
    "padding": 0,
    "dilation": 1,
    "axis": None,
    "axes": None,
    "keepdims": False,
    "ceil_mode": False,
    "count_include_pad": False,
    "data_layout": "NCHW",
    "kernel_layout": "OIHW",
    "layout": "NCHW",
}
SHORT_TYPES = {"float": "f", "int": "i", "uint": "u"}


def graph_text(module: tvm.IRModule, *functions: str) -> str:
    """Write functions of a module, the entry function where none is named.

    A function of TIR is written as the calls that it makes. Of a Relax function, variables are
    numbered in order, constants are told by their shapes, kernels by their names. A second name of
    a variable has no line, and neither has the tuple of the answers.
    """
    texts = [
        _calls_text(name, module[name])
        if isinstance(module[name], tirx.PrimFunc)
        else _function_text(name, module[name])
        for name in functions or (ENTRY,)
    ]
    return "\n\n".join(texts)


def _function_text(name: str, function: relax.Function) -> str:
    names = {parameter: str(parameter.name) for parameter in function.params}
    given = ", ".join(f"{names[p]}: {_type(p.ty)}" for p in function.params)
    bindings = [(b.var, b.value) for block in function.body.blocks for b in block.bindings]
    answer = function.body.body
    lines: list[str] = []
    for variable, value in reversed(bindings):
        if answer.same_as(variable) and isinstance(value, relax.Var | relax.Tuple):
            answer = value
    for variable, value in bindings:
        if isinstance(value, relax.Var) or value.same_as(answer):
            names[variable] = _expression(value, names)
        else:
            names[variable] = f"x{len(lines)}"
            lines.append(f"{names[variable]}: {_type(variable.ty)} = {_expression(value, names)}")
    # The importer makes a tuple of a single answer, too.
    told = answer.fields if isinstance(answer, relax.Tuple) else [answer]
    return "\n".join([f"{name}({given})", *lines, f"return {_listed(told, names)}"])


def _calls_text(name: str, function: tirx.PrimFunc) -> str:
    given = ", ".join(str(parameter.name) for parameter in function.params)
    lines: list[str] = []

    def on_call(call: tirx.Evaluate) -> None:
        lines.append(_value(call.value))

    def on_store(store: tirx.BufferStore) -> None:
        lines.append(f"ticks[{store.indices[0]}] = {_value(store.value)}")

    structural_walk(
        function.body, [(tirx.Evaluate, on_call), (tirx.BufferStore, on_store)], order="pre"
    )
    return "\n".join([f"{name}({given})", *lines])


def _value(value: Any) -> str:
    """Write an argument of a call of TIR: a pointer, so many bytes behind another, or a number."""
    if isinstance(value, tirx.Var):
        return str(value.name)
    if not isinstance(value, tvm.ir.Call):
        return str(value.value)
    called = value.op.name_hint if isinstance(value.op, tvm.ir.GlobalVar) else value.op.name
    arguments = [_value(argument) for argument in value.args]
    if called.endswith("reinterpret"):
        return arguments[-1]
    if called.endswith("add_byte_offset"):
        return " + ".join(arguments)
    if called.endswith("call_extern"):
        called, arguments = arguments[0], arguments[1:]
    return f"{called}({', '.join(arguments)})"


def _expression(value: Any, names: Mapping[relax.Var, str]) -> str:
    if isinstance(value, relax.Var):
        return names[value]
    if isinstance(value, relax.Tuple):
        return f"({_listed(value.fields, names)})"
    if isinstance(value, relax.TupleGetItem):
        return f"{_expression(value.tuple_value, names)}[{value.index}]"
    if isinstance(value, tvm.ir.Call):
        return _call(value, names)
    if (array := constant_of(value)) is not None:
        return f"const {_tensor(str(array.dtype), array.shape)}"
    number = value.value
    return f"{number:g}" if isinstance(number, float) else str(number)


def _call(call: tvm.ir.Call, names: Mapping[relax.Var, str]) -> str:
    if isinstance(call.op, tvm.ir.GlobalVar):
        return f"{call.op.name_hint}({_listed(call.args, names)})"
    if (kernel := called_kernel(call)) is not None:
        fields = call.args[1].fields
        return f"{kernel}({_listed(fields, names)}){_written_over(call, fields, names)}"
    if operator(call) == "relax.memory.alloc_storage":
        return f"storage({int(call.args[0].values[0])} bytes)"
    if operator(call).endswith("alloc_tensor"):
        # Its type and shape are told by its variable.
        return "tensor(" + _listed(call.args[: 2 if len(call.args) == 5 else 0], names) + ")"
    # What a reshape makes of a tensor is told by its variable's type.
    arguments = [a for a in call.args if not isinstance(a, relax.ShapeExpr)]
    told = [_expression(a, names) for a in arguments] + _attributes(call.attrs)
    return f"{operator(call).removeprefix('relax.')}({', '.join(told)})"


def _listed(values: Iterable[Any], names: Mapping[relax.Var, str]) -> str:
    return ", ".join(_expression(value, names) for value in values)


def _written_over(call: Any, fields: Any, names: Mapping[relax.Var, str]) -> str:
    """Tell in the place of which arguments a kernel writes its outputs."""
    if operator(call) != "relax.call_tir_inplace":
        return ""
    places = [int(place) for place in call.attrs.inplace_indices]
    over = ["new" if place < 0 else _expression(fields[place], names) for place in places]
    return f" over {', '.join(over)}"


def _attributes(attributes: Any) -> list[str]:
    told = []
    for name, usual in ATTRIBUTES.items():
        value = _plain(getattr(attributes, name, None))
        if value is not None and value != usual:
            told.append(f"{name}={value}")
    return told


def _plain(value: Any) -> Any:
    """Make a Python value of an attribute: a number of a list whose numbers are all alike."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    numbers = [int(number) for number in value]
    alike = len(numbers) > 1 and len(set(numbers)) == 1
    return numbers[0] if alike else str(numbers).replace(" ", "")


def _type(of: Any) -> str:
    if isinstance(of, relax.TupleType):
        return f"({', '.join(_type(field) for field in of.fields)})"
    if not isinstance(of, relax.TensorType):
        return "storage"
    return _tensor(str(of.dtype), shape_of(relax.Var("any", of)) or ())


def _tensor(dtype: str, shape: Iterable[int]) -> str:
    word = dtype.rstrip("0123456789")
    short = SHORT_TYPES.get(word, word) + dtype.removeprefix(word)
    return f"{short}[{','.join(str(extent) for extent in shape)}]"
