"""All between inputs and answers is computed in half precision; borders stay float32.

Before::

    x[float32] -> permute -> conv2d(W) -> add(b) -> relu -> mean -> sigmoid -> answer[float32]

After::

    x[float32] -> astype(float16) -> permute -> conv2d(W16) -> add(b16) -> relu -> mean
        -> astype(float32) -> sigmoid -> answer[float32]

Weights are rounded once, after batch norms are folded into them. Operators that a positive factor
passes through are computed in half, sums only where a kernel of ours is to add them up; all others
stay float32, between casts that TVM fuses with them. So numbers can be kept small where a network
needs it: with the module's attribute `HALF_SCALE` (a power of two: nothing is rounded) tensors in
half hold that part of what they stand for::

    x -> multiply(s) -> astype(float16) -> conv2d(W16) -> add(s * b) -> relu -> mean
        -> astype(float32) -> divide(s) -> sigmoid

Layers that the module's attribute `KEPT_FLOAT32` names stay float32, too.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import HALF_SCALE
from shuffledeploy.compiler.ir.graph import constant, constant_of, operator, rebuild, substitute
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF
from shuffledeploy.compiler.passes.graph.kept_layers import kept_chains
from shuffledeploy.compiler.passes.graph.lower_to_kernels import is_covered

# Half's largest number, and the least that has all digits.
LARGEST, LEAST = 65504.0, 2.0**-14
# Operators whose answer has the factor that all of their tensors have: constants need it, too.
_SUMS = frozenset({"relax.add", "relax.subtract", "relax.maximum", "relax.minimum", "relax.concat"})
# The same of their first argument; constants that follow are weights, indices or extents.
_FOLLOW_FIRST = frozenset({
    "relax.nn.relu", "relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.mean", "relax.negative",
    "relax.reshape", "relax.permute_dims", "relax.take", "relax.strided_slice", "relax.split",
    "relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.abs", "relax.nn.leakyrelu",
    "relax.nn.prelu",
})  # fmt: skip
# Products: of a tensor and of numbers that are known.
_BY_CONSTANT = frozenset({"relax.nn.conv2d", "relax.matmul", "relax.multiply", "relax.divide"})
# What sums up: our kernels do so without loss, TVM's own in one number of half.
_SUMMED = frozenset({"relax.nn.conv2d", "relax.matmul", "relax.nn.avg_pool2d", "relax.mean"})
# With bounds that need the factor.
_BOUNDED = {"relax.nn.relu6": (0.0, 6.0), "relax.clip": None}


def compute_in_half(module: tvm.IRModule) -> tvm.IRModule:
    """Let a network compute in half precision; see the module's docstring.

    Parameters
    ----------
    module : tvm.IRModule
        Float32, batch norms folded, layouts chosen.
    """
    scale = float((module.attrs or {}).get(HALF_SCALE, 1.0))
    tensors = _Tensors(scale)
    kept = {variable for chain in kept_chains(module) for variable in chain.computed}

    def emit(builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        new = None if variable in kept else _in_half(value, tensors, builder)
        if new is not None:
            tensors.half[variable] = builder.emit(new)
        else:
            tensors.plain[variable] = builder.emit(tensors.as_float(value, builder))

    return rebuild(module, emit, lambda builder, result: tensors.as_float(result, builder))


@dataclasses.dataclass
class _Tensors:
    """What stands for the old variables: in half, scaled, or as they were; casts on demand."""

    scale: float
    half: dict[relax.Var, Any] = dataclasses.field(default_factory=dict)
    plain: dict[relax.Var, Any] = dataclasses.field(default_factory=dict)

    def as_float(self, expr: Any, builder: relax.BlockBuilder) -> Any:
        """Write an expression on float32 tensors that stand for its variables."""
        return substitute(expr, lambda variable: self._float(variable, builder))

    def _float(self, variable: relax.Var, builder: relax.BlockBuilder) -> Any:
        if variable not in self.plain and variable in self.half:
            value = self.half[variable]
            if not isinstance(variable.ty, relax.TensorType):
                return value
            value = builder.emit(relax.op.astype(value, FLOAT))
            if self.scale != 1:
                value = builder.emit(relax.op.divide(value, relax.const(self.scale, FLOAT)))
            self.plain[variable] = value
        return self.plain.get(variable, variable)

    def in_half(self, variable: relax.Var, builder: relax.BlockBuilder) -> Any:
        """Give the half precision tensor that stands for a variable; others stay as they are."""
        if variable in self.half or not is_float(variable):
            return self.half.get(variable, self.plain.get(variable, variable))
        value = self.plain.get(variable, variable)
        if self.scale != 1:
            value = builder.emit(relax.op.multiply(value, relax.const(self.scale, FLOAT)))
        self.half[variable] = builder.emit(relax.op.astype(value, HALF))
        return self.half[variable]


def is_float(expr: Any) -> bool:
    """Whether an expression is a float32 tensor."""
    ty = expr.ty
    return isinstance(ty, relax.TensorType) and str(ty.dtype) == FLOAT


def _in_half(value: Any, tensors: _Tensors, builder: relax.BlockBuilder) -> Any:
    """Write a value on half precision tensors; ``None`` where it has to stay float32."""
    if isinstance(value, relax.TupleGetItem):
        whole = tensors.half.get(value.tuple_value)
        return None if whole is None else relax.TupleGetItem(whole, value.index)
    name = operator(value)
    factor = _factor_of_constants(value, name, tensors.scale)
    if factor is None:
        return None

    def tensor(variable: relax.Var) -> Any:
        return tensors.in_half(variable, builder)

    arguments = [substitute(_rounded(a, factor), tensor) for a in value.args]
    if name in _BOUNDED:
        bounds = _BOUNDED[name] or tuple(float(bound.value) for bound in value.args[1:])
        return relax.op.clip(arguments[0], *(bound * tensors.scale for bound in bounds))
    if name == "relax.matmul":
        return relax.op.matmul(*arguments)
    if name == "relax.nn.conv2d":
        return _convolution(value.attrs, *arguments)
    return tvm.ir.Call(value.op, arguments, value.attrs, value.ty_args)


def _convolution(attrs: Any, data: Any, weight: Any) -> Any:
    """Write a convolution whose answer has the type of its data."""
    fields = (attrs.strides, attrs.padding, attrs.dilation)
    windows = ([int(extent) for extent in field] for field in fields)
    return relax.op.nn.conv2d(
        data, weight, *windows, groups=int(attrs.groups), data_layout=str(attrs.data_layout),
        kernel_layout=str(attrs.kernel_layout), out_layout=str(attrs.out_layout),
    )  # fmt: skip


def _factor_of_constants(value: Any, name: str, scale: float) -> float | None:
    """Tell what constants of an operator are multiplied with; ``None`` where it stays float32."""
    if not all(_fits(argument) for argument in (value.args if name else ())):
        return None
    if name in _SUMMED and not is_covered(value):
        return None
    arguments = list(value.args) if name else []
    if name == "relax.concat":
        if not isinstance(arguments[0], relax.Tuple):
            return None
        arguments = list(arguments[0].fields)
    floats = [argument for argument in arguments if _holds_floats(argument)]
    variable = [argument for argument in floats if constant_of(argument) is None]
    if name in _SUMS and is_float(value):
        return scale
    if (name in _FOLLOW_FIRST or name in _BOUNDED) and variable:
        return 1.0
    by_constant = name in _BY_CONSTANT and len(variable) == 1 and variable[0].same_as(arguments[0])
    return 1.0 if by_constant else None


def _fits(expr: Any) -> bool:
    """Whether the largest of constants is one of half's numbers with all of their digits."""
    values = constant_of(expr)
    if values is None or values.dtype != np.float32:
        return True
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    return largest == 0 or LEAST <= largest <= LARGEST


def _holds_floats(argument: Any) -> bool:
    return isinstance(getattr(argument, "ty", None), relax.TensorType) and is_float(argument)


def _rounded(expr: Any, factor: float) -> Any:
    """Round constants to half, multiplied by a factor."""
    values = constant_of(expr)
    if values is not None and values.dtype == np.float32:
        return constant((values * np.float32(factor)).astype(np.float16))
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([_rounded(field, factor) for field in expr.fields])
    return expr
