"""A shuffled tensor that would be read piecemeal is written in the order in which it is read.

Before::

    gconv -> add -> relu -> dwconv(W) -> add(b) -> take(order) -> gconv

After::

    gconv -> add -> relu -> take(order) -> dwconv(W in order) -> add(b in order) -> gconv

The first convolution writes in that order (`lower_to_kernels`), so that the last one reads each
group's channels as they lie. That pays where a core multiplies by a lane of a vector: a table of
channels makes every one of its reads a load of one number, and the first convolution's writes are
fewer than the last one's reads. Elsewhere the table stays. On every core a dense convolution's
weights are put in order, which costs nothing, whoever reads its channels so::

    conv(W) -> add(a) -> dwconv(V) -> take(order) -> gconv
    conv(U) -> sigmoid -> take(order) -> multiply(..., another tensor)

    conv(W in order) -> add(a in order) -> dwconv(V in order) -> gconv
    conv(U in order) -> sigmoid -> multiply(..., another tensor)
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Array,
    Current,
    Readers,
    bindings_of,
    constant,
    constant_of,
    is_depthwise,
    is_permutation,
    is_pointwise,
    operator,
    readers_of,
    rewrite,
    shape_of,
    substitute,
)
from shuffledeploy.compiler.kernels.convolution_shape import contiguous_run
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.channel_views import BINARY, ELEMENTWISE, take_channels
from shuffledeploy.compiler.passes.graph.data_movement import CHANNEL_AXIS
from shuffledeploy.compiler.passes.graph.free_orders import written_freely

# Floats that one load brings for as many multiply-adds by lane.
WHOLE_RUN = 4


def write_in_read_order(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Move takes of channels to where the channels are written; see the module's docstring."""
    network = _Network(dict(bindings_of(module)), readers_of(module))
    by_lane = core.multiplies_by_lane
    orders: dict[relax.Var, Array] = {}
    for variable, value in network.definitions.items():
        take, groups = _permuting_take(value), network.groups_of_reader(variable)
        if take is None:
            continue
        run = contiguous_run(take.order, groups) if groups > 1 else 0
        if run and run % (WHOLE_RUN if by_lane else 1) == 0:
            # The convolution reads in this order as well as in any other.
            continue
        moved = written_freely(take.source, network.definitions, network.uses)
        if not moved and by_lane and groups > 1:
            moved = network.up_to_depthwise(take.source)
        orders.update(dict.fromkeys(moved, take.order))
    if not orders:
        return module

    def replace(
        builder: relax.BlockBuilder, variable: relax.Var, value: Any, current: Current
    ) -> Any:
        if operator(value) == "relax.take" and value.args[0] in orders:
            return current(value.args[0])
        if variable not in orders:
            return None
        order = orders[variable]
        return _in_order(builder, value, order, lambda v: v in orders, current)

    return rewrite(module, replace)


@dataclasses.dataclass(frozen=True)
class _Take:
    """A tensor that is read with all its channels in another order."""

    source: relax.Var
    order: Array


def _permuting_take(value: Any) -> _Take | None:
    """Read a `take` of all channels; None where a value is anything else."""
    if operator(value) != "relax.take" or value.attrs.axis != CHANNEL_AXIS:
        return None
    order, source = constant_of(value.args[1]), value.args[0]
    channels = (shape_of(source) or (0, 0))[CHANNEL_AXIS]
    if order is None or order.ndim != 1 or not isinstance(source, relax.Var):
        return None
    if not is_permutation(order, channels):
        return None
    return _Take(source, order)


@dataclasses.dataclass(frozen=True)
class _Network:
    """What each variable is bound to, and who reads it."""

    definitions: dict[relax.Var, Any]
    readers: Readers

    @functools.cached_property
    def uses(self) -> dict[relax.Var, int]:
        """How often each variable is read."""
        return {variable: len(readers) for variable, readers in self.readers.items()}

    def groups_of_reader(self, variable: relax.Var) -> int:
        """Count the groups of the convolution that alone reads a variable; 1 where none does."""
        reader, *others = self.readers.get(variable, (None,))
        value: Any = None if reader is None or others else self.definitions[reader]
        return int(value.attrs.groups) if operator(value) == "relax.nn.conv2d" else 1

    def up_to_depthwise(self, variable: relax.Var) -> tuple[relax.Var, ...]:
        """List what takes an order that a pointwise convolution by groups writes in.

        Returns
        -------
        tuple of relax.Var
            From the variable up to the topmost depthwise convolution, which reads what is written
            so; what stands above it is computed unordered. Empty where there is no such writer.
        """
        found: list[relax.Var] = []
        while self.uses.get(variable) == 1:
            value = self.definitions.get(variable)
            before = _running_input(value)
            if value is None or before is None:
                break
            if operator(value) == "relax.nn.conv2d" and not is_depthwise(value):
                while found and not is_depthwise(self.definitions[found[-1]]):
                    found.pop()
                return tuple(found) if is_pointwise(value) else ()
            found.append(variable)
            variable = before
        return ()


def _running_input(value: Any) -> relax.Var | None:
    """Return the one tensor that an operator transforms channel by channel, or a convolution's."""
    name = operator(value)
    if name == "relax.nn.conv2d" and constant_of(value.args[1]) is not None:
        return value.args[0] if isinstance(value.args[0], relax.Var) else None
    if name in ELEMENTWISE or name in BINARY:
        variables = [a for a in value.args if isinstance(a, relax.Var)]
        # A sum that widens its input has channels that the input has not.
        if len(variables) == 1 and shape_of(variables[0]) == shape_of(value):
            return variables[0]
    return None


def _in_order(
    builder: relax.BlockBuilder, value: Any, order: Array, is_ordered: Any, current: Current
) -> Any:
    """Write an operator so that its channels come in an order."""

    def argument(expr: Any) -> Any:
        if isinstance(expr, relax.Var):
            new = substitute(expr, current)
            return new if is_ordered(expr) else builder.emit(take_channels(new, order))
        return _constant_in_order(expr, order, len(shape_of(value) or ()))

    if operator(value) != "relax.nn.conv2d":
        return tvm.ir.Call(value.op, [argument(a) for a in value.args], value.attrs, value.ty_args)
    weight = constant_of(value.args[1])
    assert weight is not None
    data = argument(value.args[0]) if is_depthwise(value) else substitute(value.args[0], current)
    return tvm.ir.Call(value.op, [data, constant(weight[order])], value.attrs, value.ty_args)


def _constant_in_order(expr: Any, order: Array, rank: int) -> Any:
    values = constant_of(expr)
    if values is None:
        return expr
    axis = CHANNEL_AXIS - (rank - values.ndim)
    return expr if axis < 0 or values.shape[axis] == 1 else constant(np.take(values, order, axis))
