"""Which elementwise operations can ride on the kernel before them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from compile.kernels.blocks import Step
from compile.passes.graph import bindings_of, constant_of, count_uses, operator, shape_of


@dataclasses.dataclass(frozen=True)
class Chain:
    """A kernel's anchor and what follows it.

    Attributes
    ----------
    anchor : relax.Call
        The convolution, pool, product or concatenation.
    variables : tuple of relax.Var
        The anchor's variable and those of the steps, in order; the last is what others read.
    steps : tuple of Step
        The epilogue.
    operands : tuple
        What the steps read beside the running value, in order: constants and variables.
    """

    anchor: Any
    variables: tuple[relax.Var, ...]
    steps: tuple[Step, ...]
    operands: tuple[Any, ...]


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
            extended = _extended(chain, *reader)
            if extended is None or reader[0] in taken:
                break
            chain = extended
            taken.add(reader[0])
        chains[chain.variables[-1]] = chain
    return chains


def _only_readers(
    module: tvm.IRModule, uses: dict[relax.Var, int]
) -> dict[relax.Var, tuple[relax.Var, Any]]:
    readers = {}
    for variable, value in bindings_of(module):
        for argument in value.args if operator(value) else ():
            if isinstance(argument, relax.Var) and uses.get(argument) == 1:
                readers[argument] = (variable, value)
    return readers


def _extended(chain: Chain, variable: relax.Var, value: Any) -> Chain | None:
    name, before = operator(value), chain.variables[-1]
    if str(value.ty.dtype) != "float32":
        return None
    operand = None
    if name == "relax.nn.relu":
        step = Step("relu")
    elif name == "relax.nn.relu6":
        step = Step("clip", (0.0, 6.0))
    elif name == "relax.clip":
        step = Step("clip", (_number(value.args[1]), _number(value.args[2])))
    elif name == "relax.add":
        left, right = value.args
        operand = right if left.same_as(before) else left
        kind = _addition(operand, shape_of(value), shape_of(before))
        if kind is None:
            return None
        step = Step(kind)
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


def _addition(operand: Any, shape: Any, shape_before: Any) -> str | None:
    if shape != shape_before or shape is None:
        return None
    constant = constant_of(operand)
    if constant is None:
        same = isinstance(operand, relax.Var) and shape_of(operand) == shape
        return "residual" if same and str(operand.ty.dtype) == "float32" else None
    # One number a channel (the last axis), or one for all.
    channels = constant.shape[-1] if constant.ndim else 1
    return "bias" if constant.size == channels and channels in (1, shape[-1]) else None
