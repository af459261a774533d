"""A shuffled tensor that would be read piecemeal is written in the order in which it is read.

Before::

    gconv -> add -> relu -> dwconv(W) -> add(b) -> take(order) -> gconv

After::

    gconv -> add -> relu -> take(order) -> dwconv(W in order) -> add(b in order) -> gconv

The first convolution writes in that order (`lower_to_kernels`), so that the last one reads each
group's channels as they lie. That pays where a core multiplies by a lane of a vector: a table of
channels makes every one of its reads a load of one number, and the first convolution's writes are
fewer than the last one's reads. Elsewhere the table stays. On every core a dense convolution's
weights are put in order, which costs nothing::

    conv(W) -> add(a) -> dwconv(V) -> take(order) -> gconv

    conv(W in order) -> add(a in order) -> dwconv(V in order) -> gconv
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Array,
    Current,
    bindings_of,
    constant,
    constant_of,
    count_uses,
    is_depthwise,
    is_permutation,
    is_pointwise,
    operator,
    rewrite,
    shape_of,
    substitute,
)
from shuffledeploy.compiler.kernels.convolution import contiguous_run
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.channel_views import BINARY, ELEMENTWISE, take_channels
from shuffledeploy.compiler.passes.graph.data_movement import CHANNEL_AXIS

# Floats that one load brings for as many multiply-adds by lane.
WHOLE_RUN = 4


def write_in_read_order(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Move takes of channels to where the channels are written; see the module's docstring."""
    network = _Network(dict(bindings_of(module)), count_uses(module))
    by_lane = core.multiplies_by_lane
    orders: dict[relax.Var, Array] = {}
    for value in network.definitions.values():
        source = _read_piecemeal(value, network, WHOLE_RUN if by_lane else 1)
        if source is not None:
            orders.update(network.ordered_with(*source, may_scatter=by_lane))
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


def _read_piecemeal(value: Any, network: _Network, whole: int) -> tuple[relax.Var, Array] | None:
    """Find what a grouped convolution would read in no runs of `whole` channels, and the order."""
    if operator(value) != "relax.nn.conv2d" or value.attrs.groups == 1:
        return None
    take = network.definitions.get(value.args[0]) if isinstance(value.args[0], relax.Var) else None
    if take is None or operator(take) != "relax.take" or network.uses[value.args[0]] != 1:
        return None
    order = constant_of(take.args[1])
    source, channels = take.args[0], (shape_of(take.args[0]) or (0, 0))[CHANNEL_AXIS]
    if order is None or not is_permutation(order, channels):
        return None
    run = contiguous_run(order, int(value.attrs.groups))
    return None if run and run % whole == 0 else (source, order)


@dataclasses.dataclass(frozen=True)
class _Network:
    """What each variable is bound to, and how often it is read."""

    definitions: dict[relax.Var, Any]
    uses: dict[relax.Var, int]

    def ordered_with(
        self, variable: relax.Var, order: Array, *, may_scatter: bool
    ) -> dict[relax.Var, Array]:
        """List the variables that take the order, from a dense or a depthwise convolution on.

        Returns
        -------
        dict
            Variable and order; empty where nothing upstream could write in that order.
        """
        found: dict[relax.Var, Array] = {}
        while self.uses.get(variable) == 1:
            value = self.definitions.get(variable)
            before = _running_input(value)
            if value is None or before is None:
                break
            if operator(value) == "relax.nn.conv2d" and not is_depthwise(value):
                if value.attrs.groups == 1:
                    return {**found, variable: order}
                scatters = may_scatter and is_pointwise(value)
                return self._up_to_depthwise(found) if scatters else {}
            found[variable] = order
            variable = before
        return {}

    def _up_to_depthwise(self, found: dict[relax.Var, Array]) -> dict[relax.Var, Array]:
        """Drop what lies above the topmost depthwise convolution: it is computed unordered."""
        kept = list(found)
        while kept and not is_depthwise(self.definitions[kept[-1]]):
            kept.pop()
        return {variable: found[variable] for variable in kept}


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
