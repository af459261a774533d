"""A concatenation reads the parts of the one before it, which is left to who computes with it.

Before::

    c = concat(a, b)
    y = conv(relu(c * scale + shift))       # a norm before the convolution
    d = concat(c, y)                        # a dense block: each layer reads all before it

After::

    c = concat(a, b)                        # read once: product, sum and ReLU become its epilogue
    y = conv(relu(c * scale + shift))
    d = concat(a, b, y)

A tensor that is read by a concatenation and by a norm is written as it is, and read and written
again by a kernel of the norm's own. Without the concatenation among its readers nothing writes it.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Current,
    Readers,
    bindings_of,
    constant_of,
    operator,
    readers_of,
    rewrite,
)
from shuffledeploy.compiler.passes.graph.choose_layouts import LAST_AXIS

_ARITHMETIC = ("relax.add", "relax.divide", "relax.multiply", "relax.subtract")
_ACTIVATIONS = ("relax.nn.relu", "relax.sigmoid", "relax.nn.silu", "relax.clip")


def flatten_concatenations(module: tvm.IRModule) -> tvm.IRModule:
    """Let concatenations of feature maps read the parts of others; see the module's docstring."""
    values, readers = dict(bindings_of(module)), readers_of(module)
    opened = {variable for variable in values if _opens(variable, values, readers)}

    def parts(value: Any) -> list[Any]:
        each = [parts(values[f]) if f in opened else [f] for f in value.args[0].fields]
        return [part for some in each for part in some]

    def replace(_: relax.BlockBuilder, __: relax.Var, value: Any, current: Current) -> Any:
        if not _joins_channels(value) or opened.isdisjoint(value.args[0].fields):
            return None
        fields = [current(part) for part in parts(value)]
        return relax.op.concat(relax.Tuple(fields), axis=LAST_AXIS)

    return rewrite(module, replace) if opened else module


def _joins_channels(value: Any) -> bool:
    """Whether a value is a concatenation of the channels of feature maps, each a variable."""
    if operator(value) != "relax.concat" or int(value.attrs.axis or 0) != LAST_AXIS:
        return False
    fields = getattr(value.args[0], "fields", ())
    return bool(fields) and all(isinstance(field, relax.Var) for field in fields)


def _opens(variable: relax.Var, values: dict[relax.Var, Any], readers: Readers) -> bool:
    """Whether others read a concatenation's parts, and at most one computes with it."""
    if not _joins_channels(values[variable]):
        return False
    found = [None if r is None else values[r] for r in readers.get(variable, [])]
    others = [value for value in found if not _joins_channels(value)]
    return len(others) < len(found) and len(others) <= 1 and all(map(_follows, others))


def _follows(value: Any) -> bool:
    """Whether an operation of one tensor becomes the epilogue of the kernel that writes it."""
    if operator(value) in _ARITHMETIC:
        return any(constant_of(argument) is not None for argument in value.args)
    return operator(value) in _ACTIVATIONS
