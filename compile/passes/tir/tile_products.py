"""The steps of a tile's sums in lowered code: which products are added where."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import tirx

from shuffledeploy.compiler.ir.tir import with_values


@dataclasses.dataclass(frozen=True)
class Product:
    """A step of a sum: what it adds, with all that addresses come of.

    An input that is no load has no image and no index.

    Attributes
    ----------
    position : int
        Of its statement among those that follow each other.
    value : Expr
        The input.
    weight, outputs : Any
        The buffer of weights, and where the first of the vector stands.
    image, index : Any
        The buffer that the input is loaded from, and from where.
    """

    position: int
    value: Any
    weight: Any
    outputs: Any
    image: Any = None
    index: Any = None


def product_of(
    store: tirx.BufferStore, tile: Any, position: int, known: Mapping[Any, Any]
) -> Product | None:
    """Read ``total[v] + broadcast(x[i]) * w[o:o + lanes]``; ``None`` where a store is no such step.

    Parameters
    ----------
    store : BufferStore
        Of a vector of sums.
    tile : buffer
        Where sums stand.
    position : int
        Of the store.
    known : mapping
        What variables are bound to there.
    """
    value = store.value
    if not isinstance(value, tirx.Add) or not isinstance(value.b, tirx.Mul):
        return None
    image, weight = value.b.a, value.b.b
    if not isinstance(image, tirx.Broadcast) or not isinstance(weight, tvm.ir.TensorLoad):
        return None
    if constant_run(value.a, tile) != constant_run(store, tile):
        return None
    outputs = weight.indices[0]
    if not isinstance(outputs, tirx.Ramp) or int(outputs.stride) != 1:
        return None
    found = Product(position, image.value, weight.source, with_values(outputs.base, known))
    source = image.value
    if not isinstance(source, tvm.ir.TensorLoad) or len(source.indices) != 1:
        return found
    index = with_values(source.indices[0], known)
    return dataclasses.replace(found, image=source.source, index=index)


def constant_run(access: Any, tile: Any) -> tuple[int, int] | None:
    """Tell where in a tile a load or store begins, and how many lanes it has."""
    source = access.buffer if isinstance(access, tirx.BufferStore) else access.source
    if not source.same_as(tile) or len(access.indices) != 1:
        return None
    at = access.indices[0]
    if not isinstance(at, tirx.Ramp) or not isinstance(at.base, tirx.IntImm):
        return None
    return (int(at.base), int(at.lanes)) if int(at.stride) == 1 else None
