"""How each operator treats a tensor whose channels are to be read in another order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Array,
    constant,
    constant_of,
    is_permutation,
    operator,
    shape_of,
)
from shuffledeploy.compiler.passes.graph.data_movement import CHANNEL_AXIS, moves_pixels


@dataclasses.dataclass(frozen=True)
class View:
    """A tensor in memory and the order in which its channels are to be read.

    Attributes
    ----------
    tensor : relax.Expr
        What is computed and stored, channels on axis 1.
    order : Array or None
        Channel ``c`` of the program's tensor is channel ``order[c]`` of `tensor`; ``None`` where
        the two agree.
    """

    tensor: Any
    order: Array | None = None

    @property
    def channels(self) -> int:
        """Channels of the tensor in memory."""
        shape = shape_of(self.tensor)
        assert shape is not None
        return shape[CHANNEL_AXIS]

    @property
    def is_permutation(self) -> bool:
        """Whether every channel in memory is read exactly once."""
        return self.order is None or is_permutation(self.order, self.channels)

    @property
    def full_order(self) -> Array:
        """The order, written out where it is the identity."""
        return np.arange(self.channels) if self.order is None else self.order

    def reordered(self, order: Array) -> View:
        """View of this view: channel ``c`` is this view's channel ``order[c]``."""
        combined = self.full_order[order]
        identity = np.array_equal(combined, np.arange(self.channels))
        return View(self.tensor, None if identity else combined)

    def read_in_order(self, builder: relax.BlockBuilder) -> Any:
        """Emit what brings the channels into the program's order."""
        if self.order is None:
            return self.tensor
        return builder.emit(take_channels(self.tensor, self.order))


def take_channels(tensor: Any, order: Array) -> Any:
    """Call of ``take`` along the channels of a tensor with channels on axis 1."""
    index = constant(order.astype(np.int64))
    return relax.op.take(tensor, index, axis=CHANNEL_AXIS, mode="clip")


# Applied to each element alike.
ELEMENTWISE = {
    *(f"relax.nn.{name}" for name in (
        "relu", "relu6", "leakyrelu", "silu", "gelu", "gelu_tanh", "selu", "softplus",
    )),
    *(f"relax.{name}" for name in (
        "clip", "sigmoid", "tanh", "exp", "log", "abs", "negative", "square", "sqrt", "rsqrt",
        "erf",
    )),
}  # fmt: skip
# Applied to each channel alike, whatever its place.
CHANNEL_WISE = ELEMENTWISE | {
    *(f"relax.nn.{name}" for name in ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")),
    "relax.image.resize2d",
}
SPATIAL_REDUCTIONS = {"relax.mean", "relax.sum", "relax.max", "relax.min"}
BINARY = {f"relax.{n}" for n in
          ("add", "subtract", "multiply", "divide", "maximum", "minimum", "power")}  # fmt: skip


def _is_channel_wise(name: str, value: Any) -> bool:
    if name == "relax.take":
        return moves_pixels(value)
    return name in CHANNEL_WISE or (name in SPATIAL_REDUCTIONS and keeps_channels(value))


class ViewRules:
    """The rules, bound to one block builder.

    Parameters
    ----------
    builder : relax.BlockBuilder
        Where new expressions are emitted.
    view : Callable
        View of a variable of the old function.
    materialised : Callable
        The same variable with its channels put in the program's order.
    is_free : Callable
        Whether a variable can be written with its channels in any order at no cost.
    """

    def __init__(
        self,
        builder: relax.BlockBuilder,
        view: Callable[[relax.Var], View],
        materialised: Callable[[relax.Var], Any],
        is_free: Callable[[relax.Var], bool],
    ) -> None:
        self.builder = builder
        self.view = view
        self.materialised = materialised
        self.is_free = is_free

    def apply(self, value: Any) -> View | None:
        """Commute an operator with the order of its inputs.

        Returns
        -------
        View or None
            ``None`` where no input is out of order, or no rule covers the operator: its inputs
            are then put in order first.
        """
        name = operator(value)
        if not name or not any(self._out_of_order(argument) for argument in value.args):
            return None
        if _is_channel_wise(name, value):
            return self._channel_wise(value)
        if name in BINARY:
            return self._binary(value)
        rule = {
            "relax.nn.conv2d": self._convolution,
            "relax.matmul": self._matrix_product,
            "relax.concat": self._concatenation,
        }.get(name)
        return rule(value) if rule is not None else None

    def _out_of_order(self, argument: Any) -> bool:
        if isinstance(argument, relax.Tuple):
            return any(self._out_of_order(field) for field in argument.fields)
        return isinstance(argument, relax.Var) and self.view(argument).order is not None

    def _emit(self, old: Any, arguments: list[Any]) -> Any:
        return self.builder.emit(tvm.ir.Call(old.op, arguments, old.attrs, old.ty_args))

    def _channel_wise(self, value: Any) -> View | None:
        view = self.view(value.args[0])
        if not view.is_permutation:
            return None
        return View(self._emit(value, [view.tensor, *value.args[1:]]), view.order)

    def _binary(self, value: Any) -> View | None:
        sides = [self.view(a) if isinstance(a, relax.Var) else None for a in value.args]
        views = [side for side in sides if side is not None]
        if not all(view.is_permutation for view in views):
            return None
        if len(views) == 2:
            return self._of_two(value, views)
        view = views[0]
        arguments = [
            view.tensor if side is not None else self._constant_in_memory_order(argument, view)
            for side, argument in zip(sides, value.args, strict=True)
        ]
        if any(argument is None for argument in arguments):
            return None
        return View(self._emit(value, arguments), view.order)

    def _of_two(self, value: Any, views: list[View]) -> View | None:
        """Combine two tensors in one order: of two that differ one moves that can be written so."""
        if shape_of(views[0].tensor) != shape_of(views[1].tensor):
            return None
        left, right = views
        if np.array_equal(left.full_order, right.full_order):
            return View(self._emit(value, [left.tensor, right.tensor]), left.order)
        # Of two that can move the one that is out of order: the result then is in order.
        sides = sorted((0, 1), key=lambda side: views[side].order is None)
        moved = next((side for side in sides if self.is_free(value.args[side])), None)
        if moved is None:
            return None
        kept = views[1 - moved]
        inverse = np.argsort(kept.full_order)
        views[moved] = View(views[moved].reordered(inverse).read_in_order(self.builder))
        return View(self._emit(value, [view.tensor for view in views]), kept.order)

    def _constant_in_memory_order(self, argument: Any, view: View) -> Any:
        values = constant_of(argument)
        shape = shape_of(view.tensor)
        if values is None or shape is None:
            return None
        axis = CHANNEL_AXIS - (len(shape) - values.ndim)
        if values.ndim > len(shape):  # the result has its channels elsewhere
            return None
        if axis < 0 or values.shape[axis] == 1:
            return argument
        inverse = np.argsort(view.full_order)
        return constant(np.take(values, inverse, axis))

    def _convolution(self, value: Any) -> View | None:
        view, weight = self.view(value.args[0]), constant_of(value.args[1])
        groups = int(value.attrs.groups)
        if weight is None or isinstance(value.args[1], relax.Var):
            return None
        if groups == len(view.full_order) and weight.shape[1] == 1 and view.is_permutation:
            return self._depthwise(value, view, weight)
        if groups == 1 and view.is_permutation:
            inverse = np.argsort(view.full_order)
            new_weight = constant(weight[:, inverse])
            return View(self._emit(value, [view.tensor, new_weight]))
        return self._grouped(value, view, weight, groups)

    def _depthwise(self, value: Any, view: View, weight: Array) -> View:
        multiplier = weight.shape[0] // len(view.full_order)
        order = (view.full_order[:, None] * multiplier + np.arange(multiplier)).reshape(-1)
        new_weight = np.ascontiguousarray(weight[np.argsort(order)])
        return View(self._emit(value, [view.tensor, constant(new_weight)]), order)

    def _grouped(self, value: Any, view: View, weight: Array, groups: int) -> View:
        # Within a group the order is free: ascending gives the kernel contiguous runs to read.
        order = view.full_order.reshape(groups, -1)
        ranks = np.argsort(order, axis=1, kind="stable")
        by_group = weight.reshape(groups, -1, *weight.shape[1:])
        sorted_weight = np.stack(
            [np.take(kernel, rank, axis=1) for kernel, rank in zip(by_group, ranks, strict=True)]
        )
        read_order = np.take_along_axis(order, ranks, axis=1).reshape(-1)
        source = View(view.tensor).reordered(read_order).read_in_order(self.builder)
        new_weight = constant(sorted_weight.reshape(weight.shape))
        return View(self._emit(value, [source, new_weight]))

    def _matrix_product(self, value: Any) -> View | None:
        if not isinstance(value.args[0], relax.Var):
            return None
        view, weight = self.view(value.args[0]), constant_of(value.args[1])
        shape = shape_of(view.tensor)
        if weight is None or weight.ndim != 2 or shape is None or len(shape) != 2:
            return None
        if not view.is_permutation:
            return None
        rows = np.ascontiguousarray(weight[np.argsort(view.full_order)])
        return View(self._emit(value, [view.tensor, constant(rows)]))

    def _concatenation(self, value: Any) -> View | None:
        fields = value.args[0].fields if isinstance(value.args[0], relax.Tuple) else []
        views = [self.view(field) for field in fields if isinstance(field, relax.Var)]
        if int(value.attrs.axis or 0) != CHANNEL_AXIS or len(views) != len(fields):
            return None
        if not all(view.is_permutation for view in views):
            return None
        starts = np.cumsum([0, *(view.channels for view in views)])[:-1]
        order = np.concatenate([v.full_order + s for v, s in zip(views, starts, strict=True)])
        joined = self._emit(value, [relax.Tuple([view.tensor for view in views])])
        return View(joined).reordered(order)


def keeps_channels(value: Any) -> bool:
    """Whether a reduction in NCHW goes over just the pixels."""
    axes, rank = value.attrs.axis, len(shape_of(value.args[0]) or ())
    return axes is not None and rank == 4 and {int(axis) % rank for axis in axes} == {2, 3}
