"""A classifier reads the last feature map as it lies in memory.

Before::

    x[NHWC] -> permute to NCHW -> reshape (N, CHW) -> matmul(W)

After::

    x[NHWC] -> reshape (N, HWC) -> matmul(rows of W in that order)

The transposition was a kernel of its own and a pass over the feature map; the rows of a constant
weight are put in order once, when the network is compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Current,
    bindings_of,
    constant,
    constant_of,
    operator,
    rewrite,
    shape_of,
)
from shuffledeploy.compiler.passes.graph.choose_layouts import TO_CHANNELS_FIRST, permutation


def absorb_flatten(module: tvm.IRModule) -> tvm.IRModule:
    """Move transpositions before a flattened product into its weight."""
    definitions = dict(bindings_of(module))
    return rewrite(
        module,
        lambda builder, _, value, current: _in_memory_order(builder, value, definitions, current),
    )


def _in_memory_order(
    builder: relax.BlockBuilder, product: Any, definitions: dict[relax.Var, Any], current: Current
) -> Any:
    if operator(product) != "relax.matmul":
        return None
    weight = constant_of(product.args[1])
    flat: Any = definitions.get(product.args[0])
    if (
        weight is None
        or weight.ndim != 2
        or operator(flat) not in ("relax.reshape", "relax.flatten")
    ):
        return None
    transposed: Any = definitions.get(flat.args[0])
    if permutation(transposed) != TO_CHANNELS_FIRST:
        return None
    source = transposed.args[0]
    shape = shape_of(source)
    if shape is None or shape_of(product.args[0]) != (shape[0], weight.shape[0]):
        return None
    images, height, width, channels = shape
    rows = weight.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    ordered = np.ascontiguousarray(rows.reshape(weight.shape))
    flattened = builder.emit(relax.op.reshape(current(source), (images, weight.shape[0])))
    return relax.op.matmul(flattened, constant(ordered))
