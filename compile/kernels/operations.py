"""The elementwise operations that epilogues consist of, by name, as expressions of TIR.

Exponentials, sigmoids and the like are calls of TVM's intrinsics here: what computes them stands in
:mod:`compiler.passes.tir.elementary_functions`, so that keys of kernels do not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import tirx

from shuffledeploy.compiler.kernels.int8_sums import narrowed, narrowed_short, read_number


def number(value: float, like: Any) -> Any:
    """Write a number of the type that an expression has."""
    kind = str(like.ty.dtype)
    return tirx.IntImm(kind, int(value)) if kind.startswith("int") else tirx.FloatImm(kind, value)


def _leaky(value: Any, slope: Any) -> Any:
    zero = number(0, value)
    return tirx.max(value, zero) + slope * tirx.min(value, zero)


def _gelu(value: Any) -> Any:
    reached = number(1, value) + tirx.erf(value * number(math.sqrt(0.5), value))
    return value * number(0.5, value) * reached


def _gelu_tanh(value: Any) -> Any:
    # 0.5 * (1 + tanh(y)) is sigmoid(2 * y).
    cubic = value * (number(1, value) + number(0.044715, value) * value * value)
    return value * tirx.sigmoid(number(2 * math.sqrt(2 / math.pi), value) * cubic)


def _add_int8(value: Any, offset: Any, held: Any, scale: Any) -> Any:
    """Add a multiple of an int8, read with `READ_AT`, and a number that is the same for all."""
    if isinstance(offset, tirx.FloatImm) and float(offset.value) != 0:
        value = value + offset
    return value + read_number(held) * scale


#: Each takes expressions of one type and gives one, but for those of tensors that are held in int8.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "abs": tirx.abs,
    "add_int8": _add_int8,
    "add": lambda left, right: left + right,
    "cube": lambda value: value * value * value,
    "divide": lambda left, right: left / right,
    "erf": tirx.erf,
    "exp": tirx.exp,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "leaky": _leaky,
    "maximum": tirx.max,
    "minimum": tirx.min,
    "multiply": lambda left, right: left * right,
    "narrowed": narrowed,
    "narrowed_short": narrowed_short,
    "negative": lambda value: number(0, value) - value,
    "sigmoid": tirx.sigmoid,
    "silu": lambda value: value * tirx.sigmoid(value),
    "sqrt": tirx.sqrt,
    "square": lambda value: value * value,
    "subtract": lambda left, right: left - right,
    "tanh": tirx.tanh,
}

#: Operations that write what they are applied to several times.
WRITTEN_TIMES = {"cube": 3, "gelu": 2, "gelu_tanh": 3, "leaky": 2, "silu": 2, "square": 2}
