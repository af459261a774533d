"""How a Relax operator is one step of an epilogue."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tvm import relax

from shuffledeploy.compiler.ir.graph import constant_of, operator, shape_of
from shuffledeploy.compiler.kernels.blocks import EpilogueStep, Read
from shuffledeploy.compiler.passes.graph.reordered_reads import Reordered

_Operand = int | float | Read

_UNARY = {
    "relax.abs": "abs",
    "relax.erf": "erf",
    "relax.exp": "exp",
    "relax.negative": "negative",
    "relax.nn.gelu": "gelu",
    "relax.nn.gelu_tanh": "gelu_tanh",
    "relax.nn.relu": "relu",
    "relax.nn.silu": "silu",
    "relax.sigmoid": "sigmoid",
    "relax.sqrt": "sqrt",
    "relax.square": "square",
    "relax.tanh": "tanh",
}
_BINARY = {
    "relax.add": "add",
    "relax.divide": "divide",
    "relax.maximum": "maximum",
    "relax.minimum": "minimum",
    "relax.multiply": "multiply",
    "relax.subtract": "subtract",
}
#: By exponent.
_POWERS: Mapping[float | None, str] = {0.5: "sqrt", 2.0: "square", 3.0: "cube"}


#: Divisors below it have no inverse in float32.
_SMALL = 1e-30
#: Axes of a feature map.
_NHWC = 4


@dataclasses.dataclass(frozen=True)
class Step:
    """A step, and what it reads from memory: constants, variables or nothing."""

    step: EpilogueStep
    operands: tuple[Any, ...] = ()


def step_for(
    value: Any,
    known: Mapping[relax.Var, int],
    shape: tuple[int, ...] | None,
    gathered: Mapping[relax.Var, Reordered],
    *,
    alone: bool,
) -> Step | None:
    """Write an operator as a step of an epilogue.

    Parameters
    ----------
    value : relax.Expr
        What is to be computed.
    known : mapping
        Variables that the epilogue has values of, each with how far it lies back: 1 for the last.
    shape : tuple of int
        Of the kernel's output, channels last.
    gathered : mapping
        Variables whose channels or pixels are those of another tensor in another order.
    alone : bool
        Whether no other step reads the value before: sums may then start from what is added.

    Returns
    -------
    Step or None
        ``None`` where no step computes it.
    """
    name = operator(value)
    dtype = next(iter(known)).ty.dtype
    if not name or shape is None or shape_of(value) != shape or value.ty.dtype != dtype:
        return None
    if any(isinstance(a, relax.Var) and a.ty.dtype != dtype for a in value.args):
        return None
    if name in _BINARY:
        return _binary(name, value, known, shape, gathered, alone)
    return _unary(name, value, known[value.args[0]], shape) if value.args[0] in known else None


def _unary(name: str, value: Any, back: int, shape: tuple[int, ...]) -> Step | None:
    if name in ("relax.nn.relu6", "relax.clip"):
        low, high = (0.0, 6.0) if name == "relax.nn.relu6" else map(_bound, value.args[1:])
        return Step(EpilogueStep("clip", (low, high), (back,)))
    if name == "relax.power":
        power = _POWERS.get(_number(value.args[1]))
        return Step(EpilogueStep(power, operands=(back,))) if power else None
    if name == "relax.nn.leakyrelu":
        return Step(EpilogueStep("leaky", operands=(back, float(value.attrs.alpha))))
    if name == "relax.nn.prelu" and int(value.attrs.axis) % len(shape) == len(shape) - 1:
        return _with_memory("leaky", back, value.args[1], shape, {}, alone=False)
    return Step(EpilogueStep(_UNARY[name], operands=(back,))) if name in _UNARY else None


def _bound(expr: Any) -> float:
    return float(expr.value)


def _binary(
    name: str,
    value: Any,
    known: Mapping[relax.Var, int],
    shape: tuple[int, ...],
    gathered: Mapping[relax.Var, Reordered],
    alone: bool,
) -> Step | None:
    left, right = value.args
    kind = _BINARY[name]
    if left in known and right in known:
        return Step(EpilogueStep(kind, operands=(known[left], known[right])))
    if left not in known and right not in known:
        return None
    given, other = (left, right) if left in known else (right, left)
    if shape_of(given) != shape:
        return None
    number = _number(other)
    if name == "relax.divide" and given is left and number is not None and abs(number) > _SMALL:
        # A multiplication is cheaper by far.
        return Step(EpilogueStep("multiply", operands=(known[left], 1.0 / number)))
    if number is not None and not (alone and name == "relax.add"):
        return Step(EpilogueStep(kind, operands=_in_order(known[given], number, given is right)))
    swapped = given is right
    return _with_memory(kind, known[given], other, shape, gathered, alone=alone, swapped=swapped)


def _with_memory(
    kind: str,
    back: int,
    other: Any,
    shape: tuple[int, ...],
    gathered: Mapping[relax.Var, Reordered],
    *,
    alone: bool,
    swapped: bool = False,
) -> Step | None:
    """Write a step that reads a tensor beside a value."""
    taken = gathered.get(other) if isinstance(other, relax.Var) else None
    if taken is not None and shape_of(other) == shape:
        return _gathering(kind, _in_order(back, Read.GATHERED, swapped), taken)
    read = _read(other, shape)
    if read is None:
        return None
    if kind == "add" and read is Read.TENSOR:
        return Step(EpilogueStep("residual", operands=(back,)), (other,))
    if kind == "add" and read is Read.CHANNELS and alone:
        return Step(EpilogueStep("bias", operands=(back,)), (other,))
    return Step(EpilogueStep(kind, operands=_in_order(back, read, swapped)), (other,))


def _gathering(kind: str, operands: tuple[_Operand, _Operand], taken: Reordered) -> Step:
    """Write a step that reads a tensor in another order than it lies."""
    step = EpilogueStep(kind, operands=operands, stored=taken.stored, pixels=taken.pixels)
    return Step(step, (taken.tensor, *taken.tables))


def _in_order(back: int, other: _Operand, swapped: bool) -> tuple[_Operand, _Operand]:
    return (other, back) if swapped else (back, other)


def _number(expr: Any) -> float | None:
    """Value of a constant that is the same for all elements."""
    array = constant_of(expr)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _read(expr: Any, shape: tuple[int, ...]) -> Read | None:
    """Tell how a tensor is read beside an output of a shape; None where it cannot be."""
    array = constant_of(expr)
    if array is not None:
        # One number a channel (the last axis), or one for all.
        channels = array.shape[-1] if array.ndim else 1
        fits = array.size == channels and channels in (1, shape[-1])
        return Read.CHANNELS if fits else None
    if not isinstance(expr, relax.Var):
        return None
    if shape_of(expr) == shape:
        return Read.TENSOR
    of_image = len(shape) == _NHWC and shape_of(expr) == (shape[0], 1, 1, shape[-1])
    return Read.CHANNELS_OF_IMAGE if of_image else None
