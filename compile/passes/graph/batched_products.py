"""Products of two tensors that the network computes become kernels of this project.

Before::

    x[1,4,12,1024] -> reshape[4,12,1024] ----------------------> matmul -> reshape[1,4,12,12]
    y[1,4,12,1024] -> permute[1,4,1024,12] -> reshape ----------> matmul

After::

    x, y -> reshape -> one kernel that reads both where they lie -> reshape[1,4,12,12]

Few rows would not pay for packing the right operand: such products are left to TVM's own rules.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import KIND, LANES, PRODUCT
from shuffledeploy.compiler.ir.graph import Current, bindings_of, operator, rewrite, shape_of
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.batched_product import Product, primitive_function
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.sites import emit_alone, reshaped
from shuffledeploy.compiler.passes.graph.strided_views import (
    Definitions,
    StridedView,
    flat_memory,
    strided_batches,
    view_of,
)

# Rows of the left operand for which the right one is packed.
_FEWEST_ROWS = 4


def lower_batched_products(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Call kernels in the place of products; see the module's docstring.

    Parameters
    ----------
    module : tvm.IRModule
        In which products with constants, and attentions, are kernels already.
    core : Core
        What the kernel's form needs to know of the target.
    """
    definitions, lanes = dict(bindings_of(module)), core.of(FLOAT).lanes

    def replace(builder: relax.BlockBuilder, _: relax.Var, value: Any, current: Current) -> Any:
        found = _product(value, definitions, lanes)
        if found is None:
            return None
        product, views = found
        attributes = {KIND: PRODUCT, LANES: lanes, "multiply_adds": product.multiply_adds}
        batch = math.prod(product.batch)
        name = f"product_{batch}x{product.rows}x{product.columns}x{product.depth}"
        arguments = flat_memory(builder, [view.source for view in views], current)
        size = (product.out.size,)
        function = primitive_function(product)
        flat = emit_alone(builder, function, name, arguments, size, attributes)
        return reshaped(builder, flat, shape_of(value) or size)

    return rewrite(module, replace)


def _product(
    value: Any, definitions: Definitions, lanes: int
) -> tuple[Product, tuple[StridedView, StridedView]] | None:
    """Read a product that a kernel covers; ``None`` for any other value."""
    if operator(value) != "relax.matmul" or str(value.ty.dtype) != FLOAT:
        return None
    left, right = (view_of(argument, definitions) for argument in value.args)
    shape, rank = shape_of(value) or (), len(shape_of(value) or ())
    if min(left.elements.ndim, right.elements.ndim, rank) < 2 or shape[-2] < _FEWEST_ROWS:
        return None
    if any(str(view.source.ty.dtype) != FLOAT for view in (left, right)):
        return None
    depth, (*over, rows, columns) = left.elements.shape[-1], shape
    batch = math.prod(over)
    places = np.arange(batch * rows * columns, dtype=np.int64).reshape(shape)
    matrices = [
        (np.broadcast_to(left.elements, (*over, rows, depth)), left.size),
        (np.broadcast_to(right.elements, (*over, depth, columns)), right.size),
        (places, places.size),
    ]
    found = strided_batches(batch, matrices)
    if found is None:
        return None
    parted, (lefts, rights, written) = found
    scale = left.factor * right.factor
    product = Product(parted, rows, columns, depth, lefts, rights, written, scale, lanes)
    return product, (left, right)
