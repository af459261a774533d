"""Tensors that are another tensor's elements at regular places, times a number.

    x -> reshape -> permute_dims -> strided_slice -> multiply(0.125) -> reshape

A kernel that knows strides reads such a tensor where its elements lie.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax

from shuffledeploy.compiler.ir.graph import Array, Current, constant_of, operator, shape_of
from shuffledeploy.compiler.kernels.strided import Strided
from shuffledeploy.compiler.kernels.tiling import divisors
from shuffledeploy.compiler.passes.graph.data_movement import MOVES, shape_of_type
from shuffledeploy.compiler.passes.graph.sites import reshaped

Definitions = Mapping["relax.Var", Any]


@dataclasses.dataclass(frozen=True)
class StridedView:
    """What a tensor is of another one.

    Attributes
    ----------
    source : relax.Var or relax.Constant
        What stands in memory.
    elements : Array
        Flat index into the source for each element, in the tensor's shape, int64.
    factor : float
        What each element is multiplied with.
    """

    source: Any
    elements: Array
    factor: float = 1.0

    @property
    def size(self) -> int:
        """Elements of the source."""
        return int(np.prod(shape_of(self.source) or (1,)))


def view_of(expr: Any, definitions: Definitions) -> StridedView:
    """Look through moves of elements and products with numbers.

    Parameters
    ----------
    expr : relax.Expr
        A tensor of known shape.
    definitions : mapping
        What each variable is bound to.
    """
    value: Any = definitions.get(expr) if isinstance(expr, relax.Var) else None
    name = operator(value)
    if name == "relax.broadcast_to":
        view = view_of(value.args[0], definitions)
        elements = np.broadcast_to(view.elements, shape_of(value) or ())
        return dataclasses.replace(view, elements=elements)
    if isinstance(value, relax.TupleGetItem):
        split: Any = definitions.get(value.tuple_value)
        if operator(split) == "relax.split":
            return _part(view_of(split.args[0], definitions), split, int(value.index))
    if name in MOVES and isinstance(value.args[0], relax.Var):
        view = view_of(value.args[0], definitions)
        moved = MOVES[name](value, view.elements)
        if moved is not None:
            return dataclasses.replace(view, elements=moved)
    factor = factor_of(value)
    if factor is not None and str(value.ty.dtype) == str(factor[0].ty.dtype):
        view = view_of(factor[0], definitions)
        return dataclasses.replace(view, factor=view.factor * factor[1])
    shape = shape_of(expr) or ()
    return StridedView(expr, np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape))


def _part(view: StridedView, split: Any, number: int) -> StridedView:
    """Give a part of a split tensor."""
    axis = int(split.attrs.axis)
    extents = [(shape_of_type(field) or ())[axis] for field in split.ty.fields]
    first = sum(extents[:number])
    elements = np.take(view.elements, np.arange(first, first + extents[number]), axis)
    return dataclasses.replace(view, elements=elements)


def factor_of(value: Any) -> tuple[Any, float] | None:
    """Read the product of a tensor and one number, or their quotient; else ``None``."""
    name = operator(value)
    if name not in ("relax.multiply", "relax.divide"):
        return None
    left, right = value.args
    if name == "relax.multiply" and constant_of(left) is not None:
        left, right = right, left
    number = constant_of(right)
    if number is None or number.size != 1 or shape_of(left) != shape_of(value):
        return None
    factor = float(number.reshape(()))
    if name == "relax.divide":
        return (left, 1 / factor) if factor else None
    return left, factor


def in_order(expr: Any, definitions: Definitions) -> tuple[Any, list[relax.Var]]:
    """Look through other shapes of the same elements; give what is behind, and what was passed."""
    passed = []
    while isinstance(expr, relax.Var):
        value: Any = definitions.get(expr)
        if operator(value) not in ("relax.reshape", "relax.broadcast_to"):
            break
        before, after = shape_of(value.args[0]), shape_of(value)
        if before is None or after is None or np.prod(before) != np.prod(after):
            break
        passed.append(expr)
        expr = value.args[0]
    return expr, passed


def flat_memory(
    builder: relax.BlockBuilder, sources: Sequence[Any], current: Current
) -> relax.Tuple:
    """Give what stands for views' sources now as tensors of one axis, as kernels read them."""
    flat: dict[Any, Any] = {}
    for source in sources:
        if source not in flat:
            tensor = current(source) if isinstance(source, relax.Var) else source
            flat[source] = reshaped(builder, tensor, (math.prod(shape_of(source) or (1,)),))
    return relax.Tuple([flat[source] for source in sources])


def strided_batches(
    batch: int, matrices: Sequence[tuple[Array, int]]
) -> tuple[tuple[int, int], list[Strided]] | None:
    """Part a batch in two axes, along which all matrices of it lie at regular places.

    Parameters
    ----------
    batch : int
        Matrices of each tensor.
    matrices : sequence
        Of each tensor the elements, flat indices in the shape ``(..., rows, columns)``, and the
        size of what they are elements of.

    Returns
    -------
    tuple, optional
        Outer and inner extent, the inner as large as can be; the strides of each tensor.
    """
    for inner in reversed(divisors(batch, batch)):
        over = (batch // inner, inner)
        found = [
            strides
            for elements, size in matrices
            if (strides := strided(elements.reshape(*over, *elements.shape[-2:]), size)) is not None
        ]
        if len(found) == len(matrices):
            return over, found
    return None


def strided(elements: Array, size: int) -> Strided | None:
    """Give the strides of elements at ``(outer, inner, row, column)``; ``None`` if irregular."""
    offset = int(elements.flat[0])
    expected, strides = np.full(elements.shape, offset, np.int64), []
    for axis, extent in enumerate(elements.shape):
        second = tuple(int(axis == other) for other in range(elements.ndim))
        stride = int(elements[second]) - offset if extent > 1 else 0
        along = [extent if axis == other else 1 for other in range(elements.ndim)]
        expected = expected + np.arange(extent).reshape(along) * stride
        strides.append(stride)
    if not np.array_equal(expected, elements):
        return None
    outer, inner, row, column = strides
    return Strided(size, offset, (outer, inner, row, column))
