"""Sums of several tensors: which convolutions, constants and other tensors they add up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tvm import relax

from shuffledeploy.compiler.ir.graph import Array, constant_of, operator, shape_of
from shuffledeploy.compiler.passes.graph.data_movement import CHANNEL_AXIS


@dataclasses.dataclass(frozen=True)
class Summands:
    """What a sum adds up.

    Attributes
    ----------
    convolutions : tuple of relax.Var
        Dense convolutions that nobody else reads.
    bias : Array or None
        The sum of all constants, a number a channel or one for all.
    others : tuple of relax.Var
        Whatever else, in order.
    """

    convolutions: tuple[relax.Var, ...] = ()
    bias: Array | None = None
    others: tuple[relax.Var, ...] = ()

    def __add__(self, other: Summands) -> Summands:
        """Add up two sums."""
        biases = [summands.bias for summands in (self, other) if summands.bias is not None]
        return Summands(
            self.convolutions + other.convolutions,
            sum(biases[1:], biases[0]) if biases else None,
            self.others + other.others,
        )


def sums_of(
    definitions: Mapping[relax.Var, Any], uses: Mapping[relax.Var, int]
) -> dict[relax.Var, Summands]:
    """Find the sums of two convolutions and more, each as large as it gets.

    Parameters
    ----------
    definitions : mapping
        What each variable of the entry function is bound to, in NCHW.
    uses : mapping
        How often it is read.
    """
    found: dict[relax.Var, Summands] = {}
    for variable, value in definitions.items():
        parts = _parts(value, definitions, uses)
        if parts is None:
            continue
        total = Summands()
        for part in parts:
            total += _summands(part, definitions, uses, found)
        found[variable] = total
    inner = {
        part
        for variable in found
        for part in _parts(definitions[variable], definitions, uses) or ()
        if part in found and uses[part] == 1
    }
    return {v: s for v, s in found.items() if v not in inner and len(s.convolutions) > 1}


def _parts(
    value: Any, definitions: Mapping[relax.Var, Any], uses: Mapping[relax.Var, int]
) -> Sequence[Any] | None:
    """List what an operator adds up; None where it does anything else."""
    shape = shape_of(value) if operator(value) else None
    if shape is None or len(shape) != 4:
        return None
    if operator(value) == "relax.add":
        return value.args if all(_fits(part, shape) for part in value.args) else None
    if operator(value) != "relax.sum" or [int(axis) for axis in value.attrs.axis or ()] != [0]:
        return None
    # `torch.stack(branches).sum(0)`
    stacked: Any = definitions.get(value.args[0])
    joined: Any = definitions.get(stacked.args[0]) if operator(stacked) == "relax.reshape" else None
    if operator(joined) != "relax.concat" or int(joined.attrs.axis or 0) != 0:
        return None
    if uses[value.args[0]] != 1 or uses[stacked.args[0]] != 1:
        return None
    parts = joined.args[0].fields if isinstance(joined.args[0], relax.Tuple) else ()
    whole = shape_of(stacked) == (len(parts), *shape)
    return parts if whole and all(shape_of(part) == shape for part in parts) else None


def _fits(part: Any, shape: tuple[int, ...]) -> bool:
    """Whether a summand is a tensor of the sum's shape, or a constant for each channel."""
    values = constant_of(part)
    if values is None:
        return isinstance(part, relax.Var) and shape_of(part) == shape
    axis = values.ndim - len(shape) + CHANNEL_AXIS
    extents = enumerate(values.shape)
    return values.ndim <= len(shape) and all(e == 1 or at == axis for at, e in extents)


def _summands(
    part: Any,
    definitions: Mapping[relax.Var, Any],
    uses: Mapping[relax.Var, int],
    found: Mapping[relax.Var, Summands],
) -> Summands:
    values = constant_of(part)
    if values is not None:
        return Summands(bias=values)
    if uses[part] == 1 and part in found:
        return found[part]
    value: Any = definitions.get(part)
    dense = operator(value) == "relax.nn.conv2d" and int(value.attrs.groups) == 1
    if uses[part] == 1 and dense and constant_of(value.args[1]) is not None:
        return Summands((part,))
    return Summands(others=(part,))
