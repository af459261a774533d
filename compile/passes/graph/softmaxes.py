"""Softmaxes over the last axis become kernels of this project.

Before::

    x[1,4,12,12] -> softmax(axis=-1)

After::

    x -> reshape[48,12] -> one kernel -> reshape[1,4,12,12]
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import KIND, LANES, SOFTMAX
from shuffledeploy.compiler.ir.graph import Current, operator, rewrite, shape_of, substitute
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.ir.tvm_edges import FUSION
from shuffledeploy.compiler.kernels.softmax import Softmax, primitive_function
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.layer_norms import FEWEST_LANES
from shuffledeploy.compiler.passes.graph.sites import OPAQUE_PATTERN, reshaped


def lower_softmaxes(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Call kernels in the place of softmaxes over the last axis.

    Those of rows that no vectors of four fill stay as they are, for TVM's own rules.
    """

    def replace(builder: relax.BlockBuilder, _: relax.Var, value: Any, current: Current) -> Any:
        softmax = _softmax(value, core)
        if softmax is None:
            return None
        attributes = {
            KIND: SOFTMAX, FUSION: OPAQUE_PATTERN, LANES: softmax.lanes, "multiply_adds": 0,
        }  # fmt: skip
        function = primitive_function(softmax).with_attrs(attributes)
        kernel = builder.add_func(function, f"softmax_{softmax.rows}x{softmax.channels}")
        rows = (softmax.rows, softmax.channels)
        data = reshaped(builder, substitute(value.args[0], current), rows)
        written = relax.TensorType(rows, FLOAT)
        called = builder.emit(relax.call_tir(kernel, relax.Tuple([data]), written))
        return reshaped(builder, called, shape_of(value) or rows)

    return rewrite(module, replace)


def _softmax(value: Any, core: Core) -> Softmax | None:
    """Read a softmax that a kernel covers; ``None`` for any other value."""
    shape = shape_of(value) if operator(value) == "relax.nn.softmax" else None
    if not shape or str(value.ty.dtype) != FLOAT:
        return None
    lanes = math.gcd(shape[-1], core.of(FLOAT).lanes)
    if int(value.attrs.axis) % len(shape) != len(shape) - 1 or lanes < FEWEST_LANES:
        return None
    return Softmax(math.prod(shape[:-1]), shape[-1], lanes)
