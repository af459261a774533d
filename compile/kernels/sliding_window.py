"""Windows that slide over an image: how many there are, and where their elements stand."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.kernels.operations import number
from shuffledeploy.compiler.kernels.pixel_order import PixelOrder


class Sliding(Protocol):
    """What slides a window over an image: extents, height before width."""

    @property
    def kernel(self) -> tuple[int, int]:
        """Of the window."""

    @property
    def stride(self) -> tuple[int, int]:
        """From one window to the next."""

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right."""

    @property
    def dilation(self) -> tuple[int, int]:
        """From one element of a window to the next."""

    @property
    def pixels(self) -> PixelOrder:
        """Where the image's pixels stand in memory."""


def output_extent(size: int, sliding: Sliding, axis: int) -> int:
    """Count the windows along one axis (0 rows, 1 columns) of an image of that size."""
    padded = size + sliding.padding[axis] + sliding.padding[axis + 2]
    reach = sliding.dilation[axis] * (sliding.kernel[axis] - 1) + 1
    return (padded - reach) // sliding.stride[axis] + 1


@dataclasses.dataclass(frozen=True)
class WindowPlace:
    """One coordinate of a window's element in an image, where windows reach over its edges.

    Attributes
    ----------
    index : PrimExpr
        The coordinate in memory, or that of the nearest element inside the image.
    inside : PrimExpr or None
        Whether the element lies in the image; ``None`` where all do.
    """

    index: Any
    inside: Any

    def or_else(self, value: Any, outside: float | int) -> Any:
        """Take a value where the element lies in the image, another elsewhere."""
        if self.inside is None:
            return value
        return tirx.Select(self.inside, value, number(outside, value))

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Run what is written within only where the element lies in the image."""
        if self.inside is None:
            yield
        else:
            with T.If(self.inside), T.Then():
                yield

    def or_zero(self, value: Any) -> Any:
        """Take a value where the element lies in the image, zero elsewhere."""
        return self.or_else(value, 0.0)


def place(sliding: Sliding, axis: int, size: int, window: Any, element: Any) -> WindowPlace:
    """Find an element of a window along one axis (0 rows, 1 columns) of an image of that size.

    A read outside is moved to the nearest pixel inside, so that no copy of the image with a frame
    of zeros is needed. In scheduled code the conditions stand before unrolled loops: they fold to
    nothing but for the few elements of a tile that can lie outside.
    """
    before, stride = sliding.padding[axis], sliding.stride[axis]
    dilation, extent = sliding.dilation[axis], sliding.kernel[axis]
    index = window * stride + element * dilation - before
    last = (output_extent(size, sliding, axis) - 1) * stride + (extent - 1) * dilation - before
    nearest = index
    if last >= size:
        nearest = tirx.min(nearest, size - 1)
    if before:
        nearest = tirx.max(nearest, 0)
    order = sliding.pixels.of_axis(axis)
    stored = order.at(nearest) if order else nearest
    if nearest is index:
        return WindowPlace(stored, None)
    # Not "index >= 0": from that TVM's simplifier would conclude that nothing is to be moved, and
    # take the clamp away from a load that runs whether or not its value is selected.
    return WindowPlace(stored, tirx.EQ(nearest, index))
