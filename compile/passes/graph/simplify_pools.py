"""Adaptive pools become plain ones, or nothing.

Before::

    x[1, 6, 6, C] -> adaptive_avg_pool2d(6, 6) -> ...
    x[1, 12, 18, C] -> adaptive_avg_pool2d(6, 6) -> ...

After::

    x[1, 6, 6, C] -> ...
    x[1, 12, 18, C] -> avg_pool2d(kernel (2, 3), stride (2, 3)) -> ...

An adaptive pool whose windows differ in size is left as it is.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import operator, rewrite, shape_of, substitute


def simplify_pools(module: tvm.IRModule) -> tvm.IRModule:
    """Rewrite adaptive average pools; see the module's docstring."""
    return rewrite(module, lambda _, __, value, current: _plain(substitute(value, current), value))


def _plain(pool: Any, old: Any) -> Any:
    if operator(pool) != "relax.nn.adaptive_avg_pool2d":
        return None
    layout = str(pool.attrs.layout)
    before, after = shape_of(pool.args[0]), shape_of(old)
    if before is None or after is None or layout not in ("NHWC", "NCHW"):
        return None
    axes = (1, 2) if layout == "NHWC" else (2, 3)
    sizes = [(before[axis], after[axis]) for axis in axes]
    if all(size == wanted for size, wanted in sizes):
        return pool.args[0]
    if any(size % wanted for size, wanted in sizes):
        return None
    window = [size // wanted for size, wanted in sizes]
    return relax.op.nn.avg_pool2d(pool.args[0], window, window, layout=layout)
