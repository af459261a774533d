"""Branches that do the same to slices of a tensor become one grouped convolution.

Before (two paths that end in a concatenation, or in a sum)::

    x -> slice(0, n)  -> conv2d(V0) -> relu ->
    x -> slice(n, 2n) -> conv2d(V1) -> relu -> concat -> y

    x -> conv2d(U0) -> relu -> conv2d(V0) -> relu -> conv2d(W0) ->
    x -> conv2d(U1) -> relu -> conv2d(V1) -> relu -> conv2d(W1) -> add -> y

After::

    x -> conv2d(V, groups=2) -> relu -> y

    x -> conv2d(U) -> relu -> conv2d(V, groups=2) -> relu -> conv2d(W) -> y

U and V hold the branches' weights one after the other in their outputs, W in its inputs. So the
three forms of a ResNeXt block (Xie et al., Aggregated Residual Transformations, CVPR 2017, figure
3) are one network. Branches are merged where every one of their operators is, up to slices of one
tensor or to convolutions of one tensor. Nobody else may read what stands between.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Array,
    Current,
    bindings_of,
    constant,
    constant_of,
    count_uses,
    is_permutation,
    operator,
    rewrite,
    shape_of,
)
from shuffledeploy.compiler.passes.graph.branch_sums import Summands, sums_of
from shuffledeploy.compiler.passes.graph.channel_views import BINARY, CHANNEL_WISE, take_channels
from shuffledeploy.compiler.passes.graph.data_movement import (
    CHANNEL_AXIS,
    Movement,
    follow_movements,
)

# Writes a merged tensor, given what stands for old variables.
_Written = Callable[[relax.BlockBuilder, Current], Any]


@dataclasses.dataclass(frozen=True)
class _Merged:
    """Branches as one tensor: how it is written, and how many convolutions became one there."""

    write: _Written
    convolutions: int = 0


def merge_branches(module: tvm.IRModule) -> tvm.IRModule:
    """Merge the branches of a module in NCHW; see the module's docstring."""
    definitions, uses = dict(bindings_of(module)), count_uses(module)
    branches = _Branches(module, definitions, uses)
    sums = sums_of(definitions, uses)

    def replace(
        builder: relax.BlockBuilder, variable: relax.Var, value: Any, current: Current
    ) -> Any:
        if variable in sums:
            return branches.sum(builder, sums[variable], current)
        merged = branches.concatenation(value)
        return merged.write(builder, current) if merged is not None else None

    return rewrite(module, replace)


@dataclasses.dataclass(frozen=True)
class _Branches:
    """The network in which branches are looked for."""

    module: tvm.IRModule
    definitions: dict[relax.Var, Any]
    uses: dict[relax.Var, int]

    @functools.cached_property
    def movements(self) -> dict[relax.Var, Movement]:
        """What is a slice of what; found out where branches end in convolutions."""
        return follow_movements(self.module)

    def concatenation(self, value: Any) -> _Merged | None:
        """Merge what a concatenation of channels joins."""
        if operator(value) != "relax.concat" or int(value.attrs.axis or 0) != CHANNEL_AXIS:
            return None
        fields = value.args[0].fields if isinstance(value.args[0], relax.Tuple) else ()
        merged = self._merged(tuple(fields))
        return merged if merged is not None and merged.convolutions else None

    def sum(self, builder: relax.BlockBuilder, summands: Summands, current: Current) -> Any:
        """Merge those summands that are convolutions of branches; write the whole sum."""
        convolutions = tuple(self.definitions[v] for v in summands.convolutions)
        if not _alike(convolutions):
            return None
        merged = self._merged(tuple(conv.args[0] for conv in convolutions))
        if merged is None or not merged.convolutions:
            return None
        weights = [_weight(conv) for conv in convolutions]
        total = _convolution(
            convolutions[0], merged.write(builder, current), np.concatenate(weights, 1), 1
        )
        if summands.bias is not None:
            total = relax.op.add(builder.emit(total), constant(summands.bias))
        for other in summands.others:
            total = relax.op.add(builder.emit(total), current(other))
        return total

    def _merged(self, tensors: Sequence[Any]) -> _Merged | None:
        """Write tensors of equal shapes one after the other in their channels; None if it fails."""
        if not _comparable(tensors):
            return None
        values: list[Any] = [self.definitions.get(tensor) for tensor in tensors]
        name = operator(values[0])
        if any(operator(value) != name for value in values):
            return None
        if not _computes(values[0]):
            return self._slices(tensors)
        if any(self.uses[tensor] != 1 for tensor in tensors):
            return None
        if name == "relax.nn.conv2d":
            return self._convolutions(values)
        return self._binary(values) if name in BINARY else self._applied(values)

    def _slices(self, tensors: Sequence[Any]) -> _Merged | None:
        moves = [self.movements.get(tensor) for tensor in tensors]
        orders = [move.channel_order() for move in moves if move is not None]
        if not orders or len(orders) != len(tensors) or any(order is None for order in orders):
            return None
        sources = {move.source for move in moves if move is not None}
        source, shape = next(iter(sources)), moves[0].source_shape if moves[0] else ()
        order = np.concatenate([order for order in orders if order is not None])
        if len(sources) > 1 or not is_permutation(order, shape[CHANNEL_AXIS]):
            return None
        if len(shape) != len(shape_of(tensors[0]) or ()):
            return None
        if np.array_equal(order, np.arange(order.size)):
            return _Merged(lambda _, current: current(source))
        return _Merged(lambda builder, current: builder.emit(take_channels(current(source), order)))

    def _convolutions(self, values: Sequence[Any]) -> _Merged | None:
        if not _alike(values):
            return None
        weight = np.concatenate([_weight(value) for value in values])
        data, first = [value.args[0] for value in values], values[0]
        groups = int(first.attrs.groups)
        if groups == 1 and len(set(data)) == 1 and isinstance(data[0], relax.Var):
            # All read one tensor: theirs are more outputs.
            before, groups = _Merged(lambda _, current: current(data[0])), 1
        else:
            found = self._merged(data)
            if found is None:
                return None
            before, groups = found, groups * len(values)
        return _Merged(
            lambda builder, current: builder.emit(
                _convolution(first, before.write(builder, current), weight, groups)
            ),
            before.convolutions + 1,
        )

    def _applied(self, values: Sequence[Any]) -> _Merged | None:
        first = values[0]
        before = self._merged([value.args[0] for value in values])
        if before is None or not _same_beside_data(values):
            return None

        def write(builder: relax.BlockBuilder, current: Current) -> Any:
            arguments = [before.write(builder, current), *first.args[1:]]
            return builder.emit(tvm.ir.Call(first.op, arguments, first.attrs, first.ty_args))

        return _Merged(write, before.convolutions)

    def _binary(self, values: Sequence[Any]) -> _Merged | None:
        sides = [self._side([value.args[side] for value in values], values[0]) for side in (0, 1)]
        left, right = sides
        if left is None or right is None:
            return None

        def write(builder: relax.BlockBuilder, current: Current) -> Any:
            arguments = [left.write(builder, current), right.write(builder, current)]
            return builder.emit(tvm.ir.Call(values[0].op, arguments, values[0].attrs))

        return _Merged(write, left.convolutions + right.convolutions)

    def _side(self, sides: Sequence[Any], value: Any) -> _Merged | None:
        """Merge one side of an arithmetic operator: tensors, or a constant for each channel."""
        if all(isinstance(side, relax.Var) for side in sides):
            if any(shape_of(side) != shape_of(value) for side in sides):
                return None
            return self._merged(sides)
        vectors = [_of_channels(side, shape_of(value) or ()) for side in sides]
        found = [vector for vector in vectors if vector is not None]
        if len(found) != len(sides):
            return None
        return _Merged(lambda _, __: constant(np.concatenate(found, CHANNEL_AXIS)))


def _comparable(tensors: Sequence[Any]) -> bool:
    """Whether these are different variables of one shape that has channels."""
    if len(tensors) < 2 or not all(isinstance(tensor, relax.Var) for tensor in tensors):
        return False
    shapes = {shape_of(tensor) for tensor in tensors}
    rank = len(shape_of(tensors[0]) or ())
    return len(set(tensors)) == len(tensors) and len(shapes) == 1 and rank > CHANNEL_AXIS


def _computes(value: Any) -> bool:
    """Whether a value is computed by what a branch can consist of; else it may be a slice."""
    name = operator(value)
    return name == "relax.nn.conv2d" or name in CHANNEL_WISE or name in BINARY


def _alike(convolutions: Sequence[Any]) -> bool:
    """Whether convolutions differ in nothing but their data and the values of their weights."""
    first = convolutions[0] if convolutions else None
    return len(convolutions) > 1 and all(
        constant_of(conv.args[1]) is not None
        and shape_of(conv.args[1]) == shape_of(first.args[1])
        and shape_of(conv.args[0]) == shape_of(first.args[0])
        and tvm_ffi.structural_equal(conv.attrs, first.attrs)
        for conv in convolutions
        if first is not None
    )


def _weight(conv: Any) -> Array:
    weight = constant_of(conv.args[1])
    assert weight is not None
    return weight


def _convolution(like: Any, data: Any, weight: Array, groups: int) -> Any:
    """Write a convolution as another is, with other data, weights and groups."""
    attrs = like.attrs
    extents = ([int(e) for e in field] for field in (attrs.strides, attrs.padding, attrs.dilation))
    return relax.op.nn.conv2d(data, constant(weight), *extents, groups)


def _same_beside_data(values: Sequence[Any]) -> bool:
    first = values[0]
    return all(
        tvm_ffi.structural_equal(value.attrs, first.attrs)
        and tvm_ffi.structural_equal(list(value.args[1:]), list(first.args[1:]))
        for value in values
    )


def _of_channels(expr: Any, shape: tuple[int, ...]) -> Array | None:
    """Give a constant as one number a channel, ``(1, C, 1, 1)``; None where it is anything else."""
    values = constant_of(expr)
    if values is None or values.ndim > len(shape):
        return None
    full = values.reshape((1,) * (len(shape) - values.ndim) + values.shape)
    wanted = (1, shape[CHANNEL_AXIS], *(1 for _ in shape[2:]))
    if any(extent != 1 for axis, extent in enumerate(full.shape) if axis != CHANNEL_AXIS):
        return None
    return np.broadcast_to(full, wanted)
