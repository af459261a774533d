"""Layer norms become kernels of this project.

Before::

    x[1,197,192] -> layer_norm(weight, bias, axes=[-1])

After::

    x -> reshape[197,192] -> one kernel -> reshape[1,197,192]
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import KIND, LANES, NORM
from shuffledeploy.compiler.ir.graph import Current, operator, rewrite
from shuffledeploy.compiler.kernels.norm import Norm, primitive_function
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.calls_on_rows import call_on_rows, rows_of


def lower_layer_norms(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Call kernels in the place of layer norms over the last axis.

    Those of rows that no vectors of four fill stay as they are, for TVM's own rules.
    """

    def replace(builder: relax.BlockBuilder, _: relax.Var, value: Any, current: Current) -> Any:
        norm = _norm(value, core)
        if norm is None:
            return None
        function = primitive_function(norm)
        attributes = {KIND: NORM, LANES: norm.lanes}
        return call_on_rows(builder, value, current, function, "norm", attributes)

    return rewrite(module, replace)


def _norm(value: Any, core: Core) -> Norm | None:
    """Read a layer norm that a kernel covers; ``None`` for any other value."""
    if operator(value) != "relax.nn.layer_norm":
        return None
    found, attrs = rows_of(value, value.attrs.axes, core), value.attrs
    if found is None or not attrs.center or not attrs.scale:
        return None
    rows, channels, lanes = found
    return Norm(rows, channels, float(attrs.epsilon), lanes)
