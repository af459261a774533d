"""Zeros around an image become the padding of the convolution or the pool that reads it.

Before::

    x -> pad(0, 1, 0, 1) -> conv2d(padding (0, 0, 0, 0)) -> ...
    x -> pad(1, 1, 1, 1) -> avg_pool2d(padding (0, 0, 0, 0)) -> ...

After::

    x -> conv2d(padding (0, 0, 1, 1)) -> ...
    x -> avg_pool2d(padding (1, 1, 1, 1), zeros counted) -> ...

Padding costs no copy: kernels skip what lies outside. Networks that came from TensorFlow pad one
side more than the other, which a convolution of PyTorch cannot say itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import Current, bindings_of, operator, rewrite, substitute

#: Before and behind the images, and before and behind the channels.
_BESIDE_PIXELS = 4


@dataclasses.dataclass(frozen=True)
class _Padded:
    """A tensor that is another one with zeros around its image: top, left, bottom, right."""

    source: relax.Var
    zeros: tuple[int, int, int, int]


def pads_in_windows(module: tvm.IRModule) -> tvm.IRModule:
    """Let convolutions and average pools of a module in NCHW pad themselves."""
    padded: dict[relax.Var, _Padded] = {}
    for variable, value in bindings_of(module):
        found = _padded(value)
        if found is not None:
            before = padded.get(found.source)
            padded[variable] = found if before is None else _both(before, found)

    def replace(_: relax.BlockBuilder, __: relax.Var, value: Any, current: Current) -> Any:
        found = padded.get(value.args[0]) if operator(value) in _WINDOWS else None
        if found is None:
            return None
        write = _WINDOWS[operator(value)]
        return write(substitute(value, current), current(found.source), found.zeros)

    return rewrite(module, replace)


def _padded(value: Any) -> _Padded | None:
    """Read a `pad` of zeros around an image; None where a value is anything else."""
    if operator(value) != "relax.nn.pad" or not isinstance(value.args[0], relax.Var):
        return None
    widths = [int(width) for width in value.attrs.pad_width]
    if str(value.attrs.pad_mode) != "constant" or float(value.attrs.pad_value):
        return None
    beside, around = widths[:_BESIDE_PIXELS], widths[_BESIDE_PIXELS:]
    if any(beside) or len(around) != 4 or min(around) < 0:
        return None
    top, bottom, left, right = around
    return _Padded(value.args[0], (top, left, bottom, right))


def _both(inner: _Padded, outer: _Padded) -> _Padded:
    return _Padded(inner.source, _sum(inner.zeros, outer.zeros))


def _sum(zeros: tuple[int, int, int, int], padding: Any) -> tuple[int, int, int, int]:
    top, left, bottom, right = (a + int(b) for a, b in zip(zeros, padding, strict=True))
    return top, left, bottom, right


def _convolution(conv: Any, data: Any, zeros: tuple[int, int, int, int]) -> Any:
    attrs = conv.attrs
    strides, dilation = ([int(e) for e in field] for field in (attrs.strides, attrs.dilation))
    padding, groups = _sum(zeros, attrs.padding), int(attrs.groups)
    return relax.op.nn.conv2d(data, conv.args[1], strides, padding, dilation, groups)


def _average(pool: Any, data: Any, zeros: tuple[int, int, int, int]) -> Any:
    """Write an average that counts the zeros; None where it would not count its own."""
    attrs = pool.attrs
    if attrs.ceil_mode or (any(int(e) for e in attrs.padding) and not attrs.count_include_pad):
        return None
    fields = (attrs.pool_size, attrs.strides, _sum(zeros, attrs.padding), attrs.dilation)
    extents = [[int(extent) for extent in field] for field in fields]
    return relax.op.nn.avg_pool2d(data, *extents, count_include_pad=True)


_WINDOWS = {"relax.nn.conv2d": _convolution, "relax.nn.avg_pool2d": _average}
