"""What every converter stands on: a call's arguments by name, its type, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx
from tvm import relax

Converter = Callable[[fx.Node, Any], Any]


class NotConverted(ValueError):
    """An operator is used in a way that has no counterpart; the message says which."""


def arguments(node: fx.Node) -> dict[str, Any]:
    """List the arguments of a call by the names of the operator's schema, defaults included."""
    given = iter(node.args)
    found = {}
    for argument in node.target._schema.arguments:  # type: ignore[union-attr]
        default = argument.default_value if argument.has_default_value() else None
        placed = default if argument.kwarg_only else next(given, default)
        found[argument.name] = node.kwargs.get(argument.name, placed)
    return found


def type_of(node: Any) -> str:
    """Name the type of what a node stands for, as TVM does."""
    return str(node.meta["val"].dtype).removeprefix("torch.")


def cast(value: Any, dtype: str, importer: Any) -> Any:
    """Give a tensor in a type, or a constant of a number."""
    if not isinstance(value, relax.Expr):
        return relax.const(value, dtype)
    if str(value.ty.dtype) == dtype:
        return value
    return importer.block_builder.emit(relax.op.astype(value, dtype))


def named(names: str, converter: Converter) -> dict[str, Converter]:
    """Give several overloads, named in one text, a converter."""
    return dict.fromkeys(names.split(), converter)
