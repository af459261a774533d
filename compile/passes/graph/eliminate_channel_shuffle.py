"""Channel shuffles stop being work: they become the order in which a neighbour reads its channels.

Before (ShuffleNet V1, g groups of n channels)::

    gconv -> add -> relu -> reshape(g, n) -> permute(n, g) -> reshape -> dwconv(W) -> add(b) ->
    gconv

After::

    gconv -> add -> relu -> dwconv(W in the old order) -> add(b in the old order) -> take(order) ->
    gconv

The `take` that is left stands directly before a grouped convolution and no kernel is made of it:
`lower_to_kernels` turns it into the index with which that kernel reads its input. Before a dense
convolution, a matrix product or at equal ends nothing is left at all, since constant weights are
permuted instead. Where two tensors in different orders meet, in a sum or a product, a `take` stands
behind the one whose writers can write in the other's order
(:mod:`compiler.passes.graph.free_orders`); `write_in_read_order` moves it up to them.

A shuffle is recognised by what it does, not by how it is written: any chain of reshapes,
transposes, splits, slices, stacks and concatenations of one tensor is followed element by element,
and where the whole of it is a choice of channels, it is one. That covers both directions (n, g) and
(g, n), shuffles before and after the depthwise convolution, and split-and-concat networks. Each
tensor of the program is then held as a *view*, a tensor in memory with the order in which its
channels are to be read, and channel-wise operations are applied to the memory underneath.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Array,
    bindings_of,
    count_uses,
    is_permutation,
    operator,
    rebuild,
    substitute,
)
from shuffledeploy.compiler.passes.graph.channel_views import View, ViewRules
from shuffledeploy.compiler.passes.graph.data_movement import (
    CHANNEL_AXIS,
    Movement,
    follow_movements,
)
from shuffledeploy.compiler.passes.graph.free_orders import written_freely


def eliminate_channel_shuffle(module: tvm.IRModule) -> tvm.IRModule:
    """Remove channel shuffles from a module in NCHW; see the module's docstring."""
    movements = follow_movements(module)
    state = _Rewrite(movements, dict(bindings_of(module)), count_uses(module))

    def emit(builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        state.bind(builder, variable, value)

    def finish(builder: relax.BlockBuilder, result: Any) -> Any:
        return substitute(result, lambda v: state.materialised(builder, v))

    return rebuild(module, emit, finish)


def count_shuffles(module: tvm.IRModule) -> int:
    """Count the channel shuffles of a program whose constants are folded, however written."""
    movements = follow_movements(module)
    shuffles = 0
    for variable, value in bindings_of(module):
        order = _shuffle_of(movements.get(variable))
        read = value if isinstance(value, relax.Var) else value.args[0] if operator(value) else None
        before = _shuffle_of(movements.get(read))
        # What only changes the shape of a shuffled tensor shuffles nothing.
        repeats = order is not None and before is not None and np.array_equal(order, before)
        shuffles += order is not None and not repeats
    return shuffles


def _shuffle_of(moved: Movement | None) -> Array | None:
    """Give the order of a tensor that is another one with all its channels elsewhere."""
    order = None if moved is None else moved.channel_order()
    if moved is None or order is None:
        return None
    whole = is_permutation(order, moved.source_shape[CHANNEL_AXIS])
    return order if whole and not np.array_equal(order, np.arange(order.size)) else None


@dataclasses.dataclass
class _Rewrite:
    """Views of the variables rewritten so far."""

    movements: dict[relax.Var, Movement]
    definitions: dict[relax.Var, Any]
    uses: dict[relax.Var, int]
    views: dict[relax.Var, View] = dataclasses.field(default_factory=dict)

    def view(self, variable: relax.Var) -> View:
        return self.views.get(variable) or View(variable)

    def bind(self, builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        moved = self.movements.get(variable)
        if moved is not None:
            # A link of a chain: nothing is written until somebody reads it.
            if (order := moved.channel_order()) is not None:
                source = _with_trailing_extents(builder, self.view(moved.source), moved)
                self.views[variable] = source.reordered(order)
            return
        rules = ViewRules(
            builder,
            lambda v: self.readable(builder, v),
            lambda v: self.materialised(builder, v),
            lambda v: bool(written_freely(v, self.definitions, self.uses, self.movements)),
        )
        view = rules.apply(value)
        if view is None:
            new = substitute(value, lambda v: self.materialised(builder, v))
            view = View(builder.emit(new))
        self.views[variable] = view

    def readable(self, builder: relax.BlockBuilder, variable: relax.Var) -> View:
        """Return the view of a variable that is read: a link that is no order is written first."""
        if variable in self.movements and variable not in self.views:
            self.materialised(builder, variable)
        return self.view(variable)

    def materialised(self, builder: relax.BlockBuilder, variable: relax.Var) -> Any:
        """Return the variable with its channels in the program's own order."""
        if variable in self.views:
            view = self.views[variable]
            if view.order is not None:
                self.views[variable] = view = View(view.read_in_order(builder))
            return view.tensor
        if variable in self.movements:
            value = self.definitions[variable]
            new = builder.emit(substitute(value, lambda v: self.materialised(builder, v)))
            self.views[variable] = View(new)
            return new
        return variable


def _with_trailing_extents(builder: relax.BlockBuilder, source: View, moved: Movement) -> View:
    """Give a view the extents behind its channels that a flattened (N, C, 1, 1) has lost."""
    trailing = moved.elements.shape[2:]
    if trailing == moved.source_shape[2:]:
        return source
    shape = (moved.elements.shape[0], source.channels, *trailing)
    return View(builder.emit(relax.op.reshape(source.tensor, shape)), source.order)
