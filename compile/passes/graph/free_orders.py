"""Which tensors can be written with their channels in another order at no cost.

That holds where all that computes a tensor, back to dense convolutions, treats each channel apart
and has no other reader. Outputs of dense convolutions change places with their weights::

    conv(W) -> add(a) -> sigmoid -> multiply -> take(order)
    conv(V) -> relu --------------->

    conv(W in order) -> add(a in order) -> sigmoid -> multiply
    conv(V in order) -> relu ------------------------>
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from shuffledeploy.compiler.ir.graph import constant_of, is_depthwise, operator, shape_of
from shuffledeploy.compiler.passes.graph.channel_views import (
    BINARY,
    CHANNEL_WISE,
    SPATIAL_REDUCTIONS,
    keeps_channels,
)
from shuffledeploy.compiler.passes.graph.data_movement import CHANNEL_AXIS, Movement


def written_freely(
    variable: relax.Var,
    definitions: Mapping[relax.Var, Any],
    uses: Mapping[relax.Var, int],
    movements: Mapping[relax.Var, Movement] | None = None,
) -> tuple[relax.Var, ...]:
    """List the variables that take an order of channels where one of them takes it.

    Parameters
    ----------
    variable : relax.Var
        A tensor in NCHW (or NC) whose channels somebody wants in another order.
    definitions : mapping
        What each variable of the function is bound to.
    uses : mapping
        How often each is read.
    movements : mapping, optional
        Variables that only move channels of others: they are looked through.

    Returns
    -------
    tuple of relax.Var
        `variable`, and all between it and the convolutions that would write in the order; empty
        where one that computes it cannot, or somebody else reads what it writes.
    """
    found: list[relax.Var] = []
    waiting = [variable]
    while waiting:
        read = waiting.pop()
        if uses.get(read) != 1:
            return ()
        moved = (movements or {}).get(read)
        sources = [moved.source] if moved is not None else _read_alike(definitions.get(read))
        if sources is None:
            return ()
        found.append(read)
        waiting += sources
    return tuple(found)


def _read_alike(value: Any) -> list[Any] | None:
    """List what an operator reads channel by channel; None where its channels are no free choice.

    A dense convolution reads nothing so: its outputs can stand in any order.
    """
    name = operator(value)
    if name == "relax.nn.conv2d":
        if constant_of(value.args[1]) is None:
            return None
        if is_depthwise(value):
            return [value.args[0]]
        return [] if value.attrs.groups == 1 else None
    if name in CHANNEL_WISE or (name in SPATIAL_REDUCTIONS and keeps_channels(value)):
        return [value.args[0]]
    if name not in BINARY:
        return None
    shape = shape_of(value) or ()
    variables = [a for a in value.args if constant_of(a) is None]
    # What is widened by a sum has channels that the sum has not.
    alike = all(_has_channels_of(v, shape) for v in variables)
    return variables if alike else None


def _has_channels_of(expr: Any, shape: tuple[int, ...]) -> bool:
    own = shape_of(expr) if isinstance(expr, relax.Var) else None
    return (
        own is not None
        and len(own) == len(shape) > CHANNEL_AXIS
        and own[CHANNEL_AXIS] == shape[CHANNEL_AXIS]
    )
