"""Layer norms become kernels of this project.

Before::

    x[1,197,192] -> layer_norm(weight, bias, axes=[-1])

After::

    x -> reshape[197,192] -> one kernel -> reshape[1,197,192]
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import KIND, LANES, NORM
from shuffledeploy.compiler.ir.graph import Current, operator, rewrite, shape_of, substitute
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.ir.tvm_edges import FUSION
from shuffledeploy.compiler.kernels.norm import Norm, primitive_function
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.sites import OPAQUE_PATTERN, reshaped

#: Lanes of the shortest vectors that are worth a kernel.
FEWEST_LANES = 4


def lower_layer_norms(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Call kernels in the place of layer norms over the last axis.

    Those of rows that no vectors of four fill stay as they are, for TVM's own rules.
    """

    def replace(builder: relax.BlockBuilder, _: relax.Var, value: Any, current: Current) -> Any:
        norm = _norm(value, core)
        if norm is None:
            return None
        data, weight, bias = (substitute(argument, current) for argument in value.args)
        attributes = {
            KIND: NORM, FUSION: OPAQUE_PATTERN, LANES: norm.lanes, "multiply_adds": 0,
        }  # fmt: skip
        function = primitive_function(norm).with_attrs(attributes)
        kernel = builder.add_func(function, f"norm_{norm.rows}x{norm.channels}")
        rows = (norm.rows, norm.channels)
        arguments = relax.Tuple([reshaped(builder, data, rows), weight, bias])
        called = builder.emit(relax.call_tir(kernel, arguments, relax.TensorType(rows, FLOAT)))
        return reshaped(builder, called, shape_of(value) or rows)

    return rewrite(module, replace)


def _norm(value: Any, core: Core) -> Norm | None:
    """Read a layer norm that a kernel covers; ``None`` for any other value."""
    if operator(value) != "relax.nn.layer_norm" or str(value.ty.dtype) != FLOAT:
        return None
    shape, attrs = shape_of(value), value.attrs
    if not shape or [int(axis) % len(shape) for axis in attrs.axes] != [len(shape) - 1]:
        return None
    lanes = math.gcd(shape[-1], core.of(FLOAT).lanes)
    if lanes < FEWEST_LANES or not attrs.center or not attrs.scale:
        return None
    return Norm(math.prod(shape[:-1]), shape[-1], float(attrs.epsilon), lanes)
