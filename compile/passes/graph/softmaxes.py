"""Softmaxes over the last axis become kernels of this project.

Before::

    x[1,4,12,12] -> softmax(axis=-1)

After::

    x -> reshape[48,12] -> one kernel -> reshape[1,4,12,12]
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import KIND, LANES, SOFTMAX
from shuffledeploy.compiler.ir.graph import Current, operator, rewrite
from shuffledeploy.compiler.kernels.softmax import Softmax, primitive_function
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.calls_on_rows import call_on_rows, rows_of


def lower_softmaxes(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Call kernels in the place of softmaxes over the last axis.

    Those of rows that no vectors of four fill stay as they are, for TVM's own rules.
    """

    def replace(builder: relax.BlockBuilder, _: relax.Var, value: Any, current: Current) -> Any:
        softmax = _softmax(value, core)
        if softmax is None:
            return None
        function = primitive_function(softmax)
        attributes = {KIND: SOFTMAX, LANES: softmax.lanes}
        return call_on_rows(builder, value, current, function, "softmax", attributes)

    return rewrite(module, replace)


def _softmax(value: Any, core: Core) -> Softmax | None:
    """Read a softmax that a kernel covers; ``None`` for any other value."""
    if operator(value) != "relax.nn.softmax":
        return None
    rows = rows_of(value, [value.attrs.axis], core)
    return None if rows is None else Softmax(*rows)
