"""Adaptive pools become plain ones, or nothing; pools that round up get padding to reach into.

Before::

    x[1, 6, 6, C] -> adaptive_avg_pool2d(6, 6) -> ...
    x[1, 12, 18, C] -> adaptive_avg_pool2d(6, 6) -> ...
    x[1, 56, 56, C] -> max_pool2d(3, stride 2, ceil_mode) -> ...

After::

    x[1, 6, 6, C] -> ...
    x[1, 12, 18, C] -> avg_pool2d(kernel (2, 3), stride (2, 3)) -> ...
    x[1, 56, 56, C] -> max_pool2d(3, stride 2, padding (0, 0, 1, 1)) -> ...

An adaptive pool whose windows differ in size is left as it is, and so is an average that rounds up
and counts padding: not all of it counts.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import operator, rewrite, shape_of, substitute

_POOLS = ("relax.nn.max_pool2d", "relax.nn.avg_pool2d")


def simplify_pools(module: tvm.IRModule) -> tvm.IRModule:
    """Rewrite pools; see the module's docstring."""
    return rewrite(module, lambda _, __, value, current: _plain(substitute(value, current), value))


def _plain(pool: Any, old: Any) -> Any:
    if operator(pool) in _POOLS and pool.attrs.ceil_mode:
        return _rounded_down(pool, old)
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


def _rounded_down(pool: Any, old: Any) -> Any:
    """Write a pool whose windows reach over the image as one with padding there."""
    attrs, layout = pool.attrs, str(pool.attrs.layout)
    before, after = shape_of(pool.args[0]), shape_of(old)
    if before is None or after is None or layout not in ("NHWC", "NCHW"):
        return None
    kernel, stride, padding, dilation = (
        [int(extent) for extent in field]
        for field in (attrs.pool_size, attrs.strides, attrs.padding, attrs.dilation)
    )
    is_max = operator(pool) == "relax.nn.max_pool2d"
    if not is_max and attrs.count_include_pad and any(padding):
        return None
    for side, axis in enumerate((1, 2) if layout == "NHWC" else (2, 3)):
        start = (after[axis] - 1) * stride[side] - padding[side]
        if start >= before[axis]:
            return None
        padding[side + 2] = start + dilation[side] * (kernel[side] - 1) + 1 - before[axis]
    write = relax.op.nn.max_pool2d if is_max else relax.op.nn.avg_pool2d
    if any(extent < 0 for extent in padding):
        return None
    return write(
        pool.args[0], kernel, stride, padding, dilation, ceil_mode=False, count_include_pad=False,
        layout=layout,
    )  # fmt: skip
