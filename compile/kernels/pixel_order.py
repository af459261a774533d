"""Which pixel in memory stands for each pixel that a kernel reads.

A tensor that is another one enlarged to the nearest pixels, or with a border that repeats or
mirrors its edge, only moves pixels: a kernel that reads it reads the other one, and computes where.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import tirx

from shuffledeploy.compiler.ir.graph import Array


@dataclasses.dataclass(frozen=True)
class AxisOrder:
    """The rows, or the columns, that stand for those of an image.

    Place ``i`` is that of element ``border(i - before) // zoom`` in memory.

    Attributes
    ----------
    stored : int
        Elements of the axis in memory.
    extent : int
        Elements that are read.
    zoom : int
        How often in turn each is read.
    before : int
        Elements of the border in front of the first.
    mirrored : bool
        Whether borders mirror what lies behind the edge, or repeat the edge.
    """

    stored: int
    extent: int
    zoom: int = 1
    before: int = 0
    mirrored: bool = False

    def at(self, place: Any) -> Any:
        """Write where the element of a place stands; a place and the result are int32."""
        last = self.stored * self.zoom - 1
        element = place - self.before if self.before else place
        behind = self.extent - self.before - 1 > last
        if self.mirrored:
            if self.before:
                element = tirx.max(element, -element)
            if behind:
                element = tirx.min(element, 2 * last - element)
        else:
            if self.before:
                element = tirx.max(element, 0)
            if behind:
                element = tirx.min(element, last)
        return tirx.floordiv(element, self.zoom) if self.zoom > 1 else element

    def places(self) -> Array:
        """List the element of each place, ``(extent,)``, int64."""
        last = self.stored * self.zoom - 1
        elements = np.arange(self.extent) - self.before
        if self.mirrored:
            elements = last - np.abs(last - np.abs(elements))
        return np.asarray(np.clip(elements, 0, last) // self.zoom, np.int64)


def axis_order(places: Array, stored: int) -> AxisOrder | None:
    """Find the order that gives these places.

    Parameters
    ----------
    places : Array
        ``(extent,)``, each at least 0 and below `stored`.
    stored : int
        Elements of the axis in memory.

    Returns
    -------
    AxisOrder or None
        ``None`` where the places follow no such rule.
    """
    extent = len(places)
    for zoom in range(1, extent // stored + 1):
        # Beside an edge that is repeated the first element stands more than `zoom` times.
        for mirrored in (False, True):
            for before in range(extent - stored * zoom + 1):
                order = AxisOrder(stored, extent, zoom, before, mirrored)
                if before < stored * zoom and np.array_equal(order.places(), places):
                    return order
    return None


@dataclasses.dataclass(frozen=True)
class PixelOrder:
    """Where the elements of an image stand in memory.

    Attributes
    ----------
    rows, columns : AxisOrder or None
        The rows and columns that stand for those of the image; ``None`` where they are read as
        they lie.
    square : int
        Of a pixel shuffle: each square of so many rows and columns is one pixel in memory, whose
        channels are those of the square's pixels, row after row.
    """

    rows: AxisOrder | None = None
    columns: AxisOrder | None = None
    square: int = 1

    def in_memory(self, height: int, width: int, channels: int) -> tuple[int, int, int]:
        """Give the height, width and channels in memory of an image of these."""
        return (
            (self.rows.stored if self.rows else height) // self.square,
            (self.columns.stored if self.columns else width) // self.square,
            channels * self.square**2,
        )

    def of_axis(self, axis: int) -> AxisOrder | None:
        """Give the order of rows (0) or columns (1)."""
        return (self.rows, self.columns)[axis]

    def at(self, row: Any, column: Any, channel: Any, channels: int) -> tuple[Any, Any, Any]:
        """Write where an element of an image of so many channels stands."""
        row = self.rows.at(row) if self.rows else row
        column = self.columns.at(column) if self.columns else column
        return self.in_square(row, column, channel, channels)

    def in_square(self, row: Any, column: Any, channel: Any, channels: int) -> tuple[Any, Any, Any]:
        """Write where an element stands whose row and column are in order."""
        if self.square == 1:
            return row, column, channel
        inside = tirx.floormod(row, self.square) * self.square + tirx.floormod(column, self.square)
        return (
            tirx.floordiv(row, self.square),
            tirx.floordiv(column, self.square),
            inside * channels + channel,
        )


AS_THEY_LIE = PixelOrder()
