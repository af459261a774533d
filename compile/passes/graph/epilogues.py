"""Which elementwise operations can ride on the kernel before them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Array,
    bindings_of,
    constant_of,
    count_uses,
    is_depthwise,
    is_permutation,
    is_pointwise,
    operator,
    shape_of,
)
from shuffledeploy.compiler.kernels.blocks import EpilogueStep

_Readers = dict[relax.Var, tuple[relax.Var, Any]]


@dataclasses.dataclass(frozen=True)
class Chain:
    """A kernel's anchor and what follows it.

    Attributes
    ----------
    anchor : relax.Call
        The convolution, pool, product or concatenation.
    variables : tuple of relax.Var
        The anchor's variable and those of the steps, in order; the last is what others read.
    steps : tuple of EpilogueStep
        The epilogue.
    operands : tuple
        What the steps read beside the running value, in order: constants and variables.
    order : Array or None
        Channel ``c`` of what is written is channel ``order[c]`` of what was computed.
    """

    anchor: Any
    variables: tuple[relax.Var, ...]
    steps: tuple[EpilogueStep, ...]
    operands: tuple[Any, ...]
    order: Array | None = None


def find_chains(module: tvm.IRModule, is_anchor: Callable[[Any], bool]) -> dict[relax.Var, Chain]:
    """Find the longest chain after each anchor, keyed by its last variable.

    A step joins a chain where it is the only reader of what comes before it. An addition of two
    chains joins the one that is written first.
    """
    uses = count_uses(module)
    readers = _only_readers(module, uses)
    taken: set[relax.Var] = set()
    chains: dict[relax.Var, Chain] = {}
    for variable, value in bindings_of(module):
        if not is_anchor(value):
            continue
        chain = Chain(value, (variable,), (), ())
        while (reader := readers.get(chain.variables[-1])) is not None:
            extended = _reordered(chain, *reader, readers) or _extended(chain, *reader)
            if extended is None or reader[0] in taken:
                break
            chain = extended
            taken.add(reader[0])
        chains[chain.variables[-1]] = chain
    return chains


def _only_readers(module: tvm.IRModule, uses: dict[relax.Var, int]) -> _Readers:
    readers = {}
    for variable, value in bindings_of(module):
        for argument in value.args if operator(value) else ():
            if isinstance(argument, relax.Var) and uses.get(argument) == 1:
                readers[argument] = (variable, value)
    return readers


def _reordered(chain: Chain, variable: relax.Var, value: Any, readers: _Readers) -> Chain | None:
    """Let a pointwise convolution write in the order that `write_in_read_order` asked for."""
    following = readers.get(variable)
    if operator(value) != "relax.take" or following is None or chain.order is not None:
        return None
    if not (is_pointwise(chain.anchor) and is_depthwise(following[1])):
        return None
    order, channels = constant_of(value.args[1]), (shape_of(value.args[0]) or (0,))[-1]
    if order is None or not is_permutation(order, channels):
        return None
    return dataclasses.replace(chain, variables=(*chain.variables, variable), order=order)


def _extended(chain: Chain, variable: relax.Var, value: Any) -> Chain | None:
    name, before = operator(value), chain.variables[-1]
    if value.ty.dtype != chain.anchor.ty.dtype or chain.order is not None:
        return None
    operand = None
    if name == "relax.nn.relu":
        step = EpilogueStep("relu")
    elif name == "relax.nn.relu6":
        step = EpilogueStep("clip", (0.0, 6.0))
    elif name == "relax.clip":
        step = EpilogueStep("clip", (_number(value.args[1]), _number(value.args[2])))
    elif name == "relax.add":
        left, right = value.args
        operand = right if left.same_as(before) else left
        kind = _addition(operand, shape_of(value), shape_of(before), value.ty.dtype)
        if kind is None:
            return None
        step = EpilogueStep(kind)
    else:
        return None
    return Chain(
        chain.anchor,
        (*chain.variables, variable),
        (*chain.steps, step),
        chain.operands if operand is None else (*chain.operands, operand),
    )


def _number(value: Any) -> float:
    return float(value.value)


def _addition(operand: Any, shape: Any, shape_before: Any, dtype: Any) -> str | None:
    if shape != shape_before or shape is None:
        return None
    constant = constant_of(operand)
    if constant is None:
        same = isinstance(operand, relax.Var) and shape_of(operand) == shape
        return "residual" if same and operand.ty.dtype == dtype else None
    # One number a channel (the last axis), or one for all.
    channels = constant.shape[-1] if constant.ndim else 1
    return "bias" if constant.size == channels and channels in (1, shape[-1]) else None
