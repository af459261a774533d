"""Calls of kernels that compute each row of a tensor, over its last axis, for itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tvm import relax, tirx

from shuffledeploy.compiler.ir.graph import Current, shape_of, substitute
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.sites import emit_alone, reshaped

#: Lanes of the shortest vectors that are worth a kernel.
FEWEST_LANES = 4


def rows_of(value: Any, axes: Iterable[Any], core: Core) -> tuple[int, int, int] | None:
    """Count the rows and channels of an operator over its last axis, and lanes that fill a row.

    ``None`` where it works over other axes or in another type, or no vectors of `FEWEST_LANES`
    fill a row.
    """
    shape = shape_of(value)
    if not shape or str(value.ty.dtype) != FLOAT:
        return None
    lanes = math.gcd(shape[-1], core.of(FLOAT).lanes)
    if [int(axis) % len(shape) for axis in axes] != [len(shape) - 1] or lanes < FEWEST_LANES:
        return None
    return math.prod(shape[:-1]), shape[-1], lanes


def call_on_rows(
    builder: relax.BlockBuilder,
    value: Any,
    current: Current,
    function: tirx.PrimFunc,
    name: str,
    attributes: Mapping[str, Any],
) -> Any:
    """Call a kernel in the place of an operator of the same arguments, the first as rows.

    Parameters
    ----------
    builder : relax.BlockBuilder
        Where to.
    value : relax.Call
        The operator.
    current : Callable
        Gives what stands for a variable.
    function : tirx.PrimFunc
        The kernel; its last parameter is ``(rows, channels)``.
    name : str
        What its name begins with.
    attributes : mapping
        Of the kernel, its kind among them.
    """
    shape = shape_of(value) or ()
    rows = (math.prod(shape[:-1]), shape[-1])
    data, *others = (substitute(argument, current) for argument in value.args)
    arguments = relax.Tuple([reshaped(builder, data, rows), *others])
    told = {**attributes, "multiply_adds": 0}
    called = emit_alone(builder, function, f"{name}_{rows[0]}x{rows[1]}", arguments, rows, told)
    return reshaped(builder, called, shape)
