"""Indices stay within what they index, whatever a program says: nothing is read beside a tensor.

PyTorch counts negative indices from the end and refuses those that are out of range. TVM's kernels
do neither: they read what lies there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import tvm
from torch import fx
from tvm import relax

from shuffledeploy.compiler.frontend.call_arguments import Converter, NotConverted, arguments
from shuffledeploy.compiler.ir.graph import (
    Array,
    Current,
    bindings_of,
    constant,
    constant_of,
    evaluated,
    operator,
    rewrite,
    shape_of,
    substitute,
)
from shuffledeploy.model.errors import UsageError


def indices_in_range(module: tvm.IRModule) -> tvm.IRModule:
    """Bring the indices of an imported program into range.

    Parameters
    ----------
    module : tvm.IRModule
        As imported, its weights constants.

    Returns
    -------
    tvm.IRModule
        Constant indices are counted from the start; one that is computed is, too, where it is
        negative, and stops at the ends.

    Raises
    ------
    UsageError
        If a constant index is out of range.
    """
    definitions = dict(bindings_of(module))

    def replace(builder: relax.BlockBuilder, _: relax.Var, value: Any, current: Current) -> Any:
        name = operator(value)
        if name not in _INDEXED:
            return None
        new = substitute(value, current)
        data, index, *rest = new.args
        index = _known(value.args[1], definitions) or index
        shape = shape_of(data)
        if shape is None or (axis := new.attrs.axis) is None:
            return _flat_take(builder, new, shape) if name == "relax.take" else None
        safe = _in_range(builder, index, shape[int(axis)], name)
        if name == "relax.take":
            return relax.op.take(data, safe, axis=int(axis), mode="clip")
        return tvm.ir.Call(new.op, [data, safe, *rest], new.attrs, new.ty_args)

    return rewrite(module, replace)


def _known(expr: Any, definitions: dict[relax.Var, Any]) -> Any:
    """Give the constant that an expression stands for, ``None`` where it is computed."""
    value = definitions.get(expr) if isinstance(expr, relax.Var) else expr
    if isinstance(value, tvm.ir.Call):
        sources = [_known(a, definitions) if isinstance(a, relax.Var) else a for a in value.args]
        if any(source is None for source in sources):
            return None
        value = evaluated(tvm.ir.Call(value.op, sources, value.attrs, value.ty_args))
    return value if constant_of(value) is not None else None


_INDEXED = {"relax.take", "relax.gather_elements", "relax.scatter_elements"}


def _flat_take(builder: relax.BlockBuilder, take: Any, shape: tuple[int, ...] | None) -> Any:
    if shape is None:
        return None
    flat = builder.emit(relax.op.reshape(take.args[0], (math.prod(shape),)))
    safe = _in_range(builder, take.args[1], math.prod(shape), "relax.take")
    return relax.op.take(flat, safe, axis=0, mode="clip")


def _in_range(builder: relax.BlockBuilder, index: Any, extent: int, name: str) -> Any:
    values = constant_of(index)
    if values is not None:
        outside = (values < -extent) | (values >= extent)
        if outside.any():
            raise UsageError(
                f"the program reads index {int(values[outside].flat[0])} of an axis of {extent}"
                f" elements ({name.removeprefix('relax.')})"
            )
        return constant(np.where(values < 0, values + extent, values).astype(values.dtype))
    return builder.emit(_clipped(index, extent))


def _clipped(index: Any, extent: int) -> Any:
    """Count a computed index from the start, and stop it at the ends."""

    def const(value: int) -> Any:
        return relax.const(value, str(index.ty.dtype))

    if "uint" in str(index.ty.dtype):
        return relax.op.minimum(index, const(extent - 1))
    behind = relax.op.add(index, const(extent))
    counted = relax.op.where(relax.op.less(index, const(0)), behind, index)
    return relax.op.maximum(relax.op.minimum(counted, const(extent - 1)), const(0))


def _indexed(node: fx.Node, importer: Any) -> Any:
    given = arguments(node)
    shape = tuple(int(extent) for extent in given["self"].meta["val"].shape)
    return _Numbered(given["indices"], shape, importer.env[given["self"]]).taken(importer)


@dataclasses.dataclass(frozen=True)
class _Numbered:
    """A tensor indexed by tensors: one axis of it stands for all that are indexed.

    Attributes
    ----------
    indices : sequence of fx.Node or None
        Of each axis, from the first on; ``None`` takes all of it.
    shape : tuple of int
        Of the tensor.
    data : relax.Expr
        The tensor.
    """

    indices: Sequence[fx.Node | None]
    shape: tuple[int, ...]
    data: Any

    def taken(self, importer: Any) -> Any:
        """Emit what the indices take."""
        emit = importer.block_builder.emit
        places = [axis for axis, index in enumerate(self.indices) if index is not None]
        if any(self.indices[axis].meta["val"].dtype == torch.bool for axis in places):  # type: ignore[union-attr]
            raise NotConverted("a mask chooses how many elements there are")
        if len(places) == 1:
            index = importer.env[self.indices[places[0]]]
            return emit(relax.op.take(self.data, index, axis=places[0]))
        first, data = places[0], self.data
        order = list(range(len(self.shape)))
        if places != order[first : first + len(places)]:
            order, first = [*places, *(axis for axis in order if axis not in places)], 0
            data = emit(relax.op.permute_dims(data, order))
        extents = [self.shape[axis] for axis in order]
        behind = first + len(places)
        size = math.prod(extents[first:behind])
        joined = emit(relax.op.reshape(data, (*extents[:first], size, *extents[behind:])))
        position = relax.const(0, "int64")
        for axis in places:
            index = emit(relax.op.astype(importer.env[self.indices[axis]], "int64"))
            here = relax.op.multiply(position, relax.const(self.shape[axis], "int64"))
            position = emit(relax.op.add(here, emit(_clipped(index, self.shape[axis]))))
        return emit(relax.op.take(joined, position, axis=first))


def _selected(node: fx.Node, importer: Any) -> Any:
    given = arguments(node)
    extent = int(given["self"].meta["val"].shape[given["dim"]])
    index = relax.const(int(given["index"]) % extent, "int64")
    return importer.block_builder.emit(
        relax.op.take(importer.env[given["self"]], index, int(given["dim"]))
    )


def _put(node: fx.Node, importer: Any) -> Any:
    """Write at indices: the data lies flat, and each element that is written has its number."""
    given, emit = arguments(node), importer.block_builder.emit
    shape = tuple(int(extent) for extent in given["self"].meta["val"].shape)
    if (masked := _put_where(given, importer)) is not None:
        return masked
    numbers = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    numbered = _Numbered(given["indices"], shape, relax.const(numbers, "int64"))
    places = numbered.taken(importer)
    wide = [int(extent) for extent in places.ty.shape]
    flat = emit(relax.op.reshape(importer.env[given["self"]], (numbers.size,)))
    values = emit(relax.op.broadcast_to(importer.env[given["values"]], wide))
    rows = [emit(relax.op.reshape(part, (math.prod(wide),))) for part in (places, values)]
    kind = "add" if given["accumulate"] else "update"
    written = emit(relax.op.scatter_elements(flat, *rows, axis=0, reduction=kind))
    return emit(relax.op.reshape(written, shape))


def _put_where(given: dict[str, Any], importer: Any) -> Any:
    """Write one number where a mask says; ``None`` where something else is written."""
    mask, values = given["indices"][0], given["values"].meta["val"]
    if len(given["indices"]) > 1 or mask is None or mask.meta["val"].dtype != torch.bool:
        return None
    if values.numel() != 1 or given["accumulate"]:
        return None
    emit, data = importer.block_builder.emit, importer.env[given["self"]]
    behind = given["self"].meta["val"].dim() - mask.meta["val"].dim()
    wide = emit(relax.op.reshape(importer.env[mask], (*mask.meta["val"].shape, *[1] * behind)))
    number = emit(relax.op.reshape(importer.env[given["values"]], (1,)))
    return emit(relax.op.where(wide, number, data))


def _nearest(node: fx.Node, importer: Any) -> Any:
    """Resize to the nearest elements: the place of each is known."""
    given = arguments(node)
    before, after = given["input"].meta["val"].shape[2:], node.meta["val"].shape[2:]
    factors = given["scale_factors"] or [None] * len(after)
    places = []
    for old, new, factor in zip(before, after, factors, strict=True):
        step = np.float32(1.0 / factor if factor else old / new)
        nearest = np.floor(np.arange(new, dtype=np.float32) * step).astype(np.int64)
        places.append(np.minimum(nearest, old - 1))
    return _placed(importer, given["input"], places)


def _bordered(node: fx.Node, importer: Any) -> Any:
    """Put a border of an image's own pixels around it: the place of each is known."""
    given = arguments(node)
    height, width = given["self"].meta["val"].shape[-2:]
    left, right, top, bottom = (int(extent) for extent in given["padding"])
    rows, columns = np.arange(-top, height + bottom), np.arange(-left, width + right)
    mirrors = node.target is torch.ops.aten.reflection_pad2d.default
    if mirrors:
        rows, columns = (
            last - np.abs(last - np.abs(places))
            for places, last in ((rows, height - 1), (columns, width - 1))
        )
    places = [np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return _placed(importer, given["self"], places)


def _placed(importer: Any, image: fx.Node, places: Sequence[Array]) -> Any:
    """Take the rows and columns of an image, the last two axes, that stand at some places."""
    data, rank = importer.env[image], image.meta["val"].ndim
    for axis, found in enumerate(places, start=rank - len(places)):
        extent = image.meta["val"].shape[axis]
        if not np.array_equal(found, np.arange(extent)):
            index = relax.const(found, "int64")
            data = importer.block_builder.emit(relax.op.take(data, index, axis=axis))
    return data


def _strided(node: fx.Node, importer: Any) -> Any:
    """Read a tensor's memory by steps: the place of each element is known."""
    given, emit = arguments(node), importer.block_builder.emit
    value = given["self"].meta["val"]
    if not value.is_contiguous():
        raise NotConverted("it reads the memory of a tensor that does not lie in order")
    steps = zip(given["size"], given["stride"], strict=True)
    offset = int(given["storage_offset"] or 0)
    axes = np.ix_(*(np.arange(size, dtype=np.int64) * step for size, step in steps))
    places = np.asarray(sum(axes, start=np.asarray(offset, np.int64)))
    flat = emit(relax.op.reshape(importer.env[given["self"]], (value.numel(),)))
    return emit(relax.op.take(flat, relax.const(places, "int64"), axis=0))


def _looked_up(node: fx.Node, importer: Any) -> Any:
    table, index = node.args[:2]
    return importer.block_builder.emit(
        relax.op.take(importer.env[table], importer.env[index], axis=0)
    )


INDEXING: dict[str, Converter] = {
    "embedding.default": _looked_up,
    "index.Tensor": _indexed,
    "select.int": _selected,
    "index_put.default": _put,
    "as_strided.default": _strided,
    "upsample_nearest2d.vec": _nearest,
    "reflection_pad2d.default": _bordered,
    "replication_pad2d.default": _bordered,
}
