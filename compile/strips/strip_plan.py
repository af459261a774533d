"""Which rows of which layer are computed when, and where they stand meanwhile.

The layers of a group are computed strip by strip: a few rows of the first, then whatever rows of
the second those allow, and so on, so that what a layer writes is still in the core's own cache when
the next one reads it. Nothing is computed twice. Layers inside a group never have a whole tensor in
memory: their rows stand in a window that slides down the image. A sum over a residual is written
where that stands, row by row, and shares its window.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence

from shuffledeploy.compiler.ir.memory_layout import ALIGNMENT, aligned


@dataclasses.dataclass(frozen=True)
class Source:
    """What a layer reads of another layer of its group.

    Attributes
    ----------
    layer : int
        Which one.
    needs : tuple of int
        ``needs[r]`` rows of it, from the top, are needed by the first ``r`` rows of the reader.
    keeps : tuple of int
        From row ``keeps[r]`` on, its rows are needed by the reader's rows from ``r`` on.
    """

    layer: int
    needs: tuple[int, ...]
    keeps: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One kernel of a group.

    Attributes
    ----------
    height, width : int
        Of its output.
    row_bytes : int
        Of a row of its output.
    unit, units : int
        Pixels in the smallest range that its kernel computes, and how many such there are; the
        last may have fewer.
    sources : tuple of Source
        What it reads of the group.
    kept : bool
        Whether its output is read outside the group, and so needs a whole tensor.
    over : int, optional
        The layer over whose rows it is written, each over its own.
    given : bool
        Whether it is nothing to compute, but a whole tensor that others are written over.
    dtype : str
        Of the elements of its output.
    """

    height: int
    width: int
    row_bytes: int
    unit: int
    units: int
    sources: tuple[Source, ...]
    kept: bool
    over: int | None = None
    given: bool = False
    dtype: str = "float32"

    @property
    def aligned_rows(self) -> int:
        """Rows after which one begins where a vector may."""
        return ALIGNMENT // math.gcd(self.row_bytes, ALIGNMENT)

    def rows_done(self, units: int) -> int:
        """Rows that are complete after so many units."""
        return min(units * self.unit // self.width, self.height)

    def rows_begun(self, units: int) -> int:
        """Rows that have at least a pixel after so many units."""
        return min(-(-units * self.unit // self.width), self.height)


@dataclasses.dataclass(frozen=True)
class RowRun:
    """One call of a layer's kernel: units from ``first`` to before ``last``."""

    layer: int
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class RowWindow:
    """Where the rows of a layer, and of those written over it, stand in the workspace.

    Attributes
    ----------
    start : int
        Bytes from its beginning.
    rows : int
        How many have room; 0 for a layer that has a whole tensor, or stands in another's place.
    """

    start: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Move:
    """Rows that are still needed go up in their window, by so many rows, to its top."""

    layer: int
    by: int
    rows: int


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run, and the row that stands at the top of each window meanwhile."""

    run: RowRun
    tops: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class StripPlan:
    """All that a group does, in order.

    Attributes
    ----------
    steps : tuple
        Runs of kernels and moves of rows.
    windows : tuple of RowWindow
        One for each layer.
    places : tuple of int
        For each layer, in whose window or whole tensor it stands.
    workspace : int
        Bytes of all windows.
    """

    steps: tuple[PlannedRun | Move, ...]
    windows: tuple[RowWindow, ...]
    places: tuple[int, ...]
    workspace: int


def plan_strips(layers: Sequence[Layer], strips: int) -> StripPlan:
    """Plan a group in so many strips."""
    runs = order_runs(layers, strips)
    places = places_of(layers)
    windows, workspace = _windows(layers, runs)
    done, tops = _given_units(layers), [0] * len(layers)
    steps: list[PlannedRun | Move] = []
    for run in runs:
        layer, place = layers[run.layer], places[run.layer]
        rows, top = windows[place].rows, tops[place]
        if rows and layer.rows_begun(run.last) - top > rows:
            tops[place] = _first_kept(layers, places, place, done)
            begun = max(
                each.rows_begun(units)
                for each, units, its in zip(layers, done, places, strict=True)
                if its == place
            )
            if begun > tops[place]:
                steps.append(Move(place, tops[place] - top, begun - tops[place]))
        steps.append(PlannedRun(run, tuple(tops[place] for place in places)))
        done[run.layer] = run.last
    return StripPlan(tuple(steps), windows, places, workspace)


def places_of(layers: Sequence[Layer]) -> tuple[int, ...]:
    """Tell for each layer in whose window or whole tensor it stands.

    A layer is written over the one before it, and so on: all of them stand where the last does if
    that is kept, else where the first does; and there, too, if the first is given.
    """
    first: list[int] = []
    for index, layer in enumerate(layers):
        first.append(index if layer.over is None else first[layer.over])
    kept = {
        first[index]: index
        for index, layer in enumerate(layers)
        if layer.kept and not layers[first[index]].given
    }
    return tuple(kept.get(index, index) for index in first)


def overwrites_unread(layers: Sequence[Layer], strips: int) -> set[int]:
    """List the layers that would be written over rows that another still has to read."""
    done = _given_units(layers)
    found = set()
    for run in order_runs(layers, strips):
        layer = layers[run.layer]
        if layer.over is not None:
            begun = layer.rows_begun(run.last)
            read = [
                source.keeps[reader.rows_done(units)]
                for reader, units in zip(layers, done, strict=True)
                for source in reader.sources
                if source.layer == layer.over and reader is not layer
            ]
            if any(rows < begun for rows in read):
                found.add(run.layer)
        done[run.layer] = run.last
    return found


def order_runs(layers: Sequence[Layer], strips: int) -> list[RowRun]:
    """Order the work of a group: in each strip, each layer goes as far as what it reads allows."""
    done = _given_units(layers)
    runs = []
    for strip in range(1, strips + 1):
        for index, layer in enumerate(layers):
            last = math.ceil(layer.units * strip / strips)
            if layer.sources:
                last = _units_allowed(layers, layer, done)
            if last > done[index]:
                runs.append(RowRun(index, done[index], last))
                done[index] = last
    return runs


def _units_allowed(layers: Sequence[Layer], layer: Layer, done: Sequence[int]) -> int:
    """Units that a layer can compute of what its sources have done."""
    rows = layer.height
    for source in layer.sources:
        ready = layers[source.layer].rows_done(done[source.layer])
        rows = min(rows, bisect.bisect_right(source.needs, ready) - 1)
    return layer.units if rows == layer.height else rows * layer.width // layer.unit


def _first_kept(
    layers: Sequence[Layer], places: Sequence[int], place: int, done: Sequence[int]
) -> int:
    """First row that must stay in a place, where a vector may begin."""
    inside = [index for index, its in enumerate(places) if its == place]
    needed = [
        source.keeps[reader.rows_done(units)]
        for reader, units in zip(layers, done, strict=True)
        for source in reader.sources
        if source.layer in inside
    ]
    first = min([*(layers[index].rows_done(done[index]) for index in inside), *needed])
    return first - first % layers[place].aligned_rows


def live_rows(layers: Sequence[Layer], runs: Sequence[RowRun]) -> list[int]:
    """Most rows that stand in each place at once, from the first needed to the last."""
    places = places_of(layers)
    done, most = _given_units(layers), [0] * len(layers)
    for run in runs:
        layer = layers[run.layer]
        begun = layer.rows_begun(run.last)
        # What is given is at hand from when it is read.
        reached = {s.layer: s.needs[begun] for s in layer.sources if layers[s.layer].given}
        for index, row in ((run.layer, begun), *reached.items()):
            place = places[index]
            most[place] = max(most[place], row - _first_kept(layers, places, place, done))
        done[run.layer] = run.last
    return most


def _given_units(layers: Sequence[Layer]) -> list[int]:
    """Tell how many units of each layer there are to begin with."""
    return [layer.units if layer.given else 0 for layer in layers]


def working_set(layers: Sequence[Layer], strips: int) -> int:
    """Bytes of all rows that a group keeps at hand."""
    live = live_rows(layers, order_runs(layers, strips))
    return sum(rows * layer.row_bytes for rows, layer in zip(live, layers, strict=True))


def _windows(layers: Sequence[Layer], runs: Sequence[RowRun]) -> tuple[tuple[RowWindow, ...], int]:
    start, windows = 0, []
    for layer, live in zip(layers, live_rows(layers, runs), strict=True):
        # Some room, or rows would move up at every run.
        room = live + max(live // 2, layer.aligned_rows)
        rows = 0 if layer.kept or not live else min(layer.height, room)
        windows.append(RowWindow(start, rows))
        start += aligned(rows * layer.row_bytes)
    return tuple(windows), start
