"""Outputs beside whole vectors: several pixels share one vector of sums, on x86.

With AVX-512 the last four of 20 outputs fill a quarter of a vector. Before, for each input ``k``::

    total[16:32] += x[0, k] * w[k, 16:32]               # pixel 0: four sums, twelve of nothing
    total[48:64] += x[1, k] * w[k, 16:32]               # pixel 1, and so on

After, for each four inputs::

    inputs = x[0, k:k + 4], x[1, k:k + 4], x[2, k:k + 4], x[3, k:k + 4]
    total[16:32] += inputs[0, 0, 0, 0, 4, 4, 4, 4, 8, ...] * w[k, 16:20, 16:20, 16:20, 16:20]
    ...                                                 # three more, of inputs[1, 1, 1, 1, 5, ...]

A shuffle that stays in quarters of a vector picks the inputs: cheap where the core has units for
it beside those that multiply (AMD), so the search decides. Sums are added in the same order.

With AVX2 a quarter is half a vector: of 20 outputs two pixels share one, of 10 four do, and then a
quarter has sums of two pixels, whose inputs stand in two vectors::

    inputs0, inputs1 = (x[0, k:k + 4], x[2, k:k + 4]), (x[1, k:k + 4], x[3, k:k + 4])
    total[8:16] += (inputs0[0, 0], inputs1[0, 0], inputs0[4, 4], inputs1[4, 4]) * w[k, 8:10, ...]

Inputs that are no neighbours, as of windows over a row and of channels that a table names, are
blended: each pixel's stands in all lanes already, for the whole vectors of outputs::

    total[8:16] += (x0[0:4], x1[4:8]) * w[k, 8:12, 8:12]    # x0 = broadcast(x[0, k])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
import tvm.sym
from tvm import s_tir, tirx
from tvm_ffi import structural_equal, structural_map, structural_walk

from shuffledeploy.compiler.ir.attributes import LANES, SHARED, attribute
from shuffledeploy.compiler.ir.tir import loads_in, picked, tiles_in, with_values
from shuffledeploy.compiler.kernels.tiling import BLENDED_LANES, QUARTER, SHARED_RESTS
from shuffledeploy.compiler.passes.tir.tile_products import Product, constant_run, product_of


def is_shared(function: tirx.PrimFunc) -> bool:
    """Whether a scheduled kernel asks for it."""
    found = False

    def on_block(block: s_tir.SBlock) -> None:
        nonlocal found
        found |= SHARED in block.annotations and int(block.annotations[SHARED]) > 0

    structural_walk(function.body, (s_tir.SBlock, on_block))
    return found


def mark_shared(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Note on a scheduled kernel that it asks for it: what a block asks for is lost with blocks."""
    return function.with_attr(SHARED, 1) if is_shared(function) else function


def share_vectors(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Let pixels share vectors in a lowered kernel.

    Returns
    -------
    tirx.PrimFunc
        The function as it was where a sum is not one of products, or their inputs are no neighbours
        and vectors are not blended.
    """
    body, lanes = function.body, int(attribute(function, LANES) or 0)
    for tile in tiles_in(body):
        rests = _rests(body, tile, lanes)
        if rests is None:
            continue
        sharing = _Sharing(tile, lanes, *rests)
        body = structural_map(body, (tirx.SeqStmt, sharing.sequence))
        body = structural_map(body, (tvm.ir.TensorLoad, sharing.output))
        whole = _count_stores(body, tile) == sharing.written and not _reads_any(
            body, tile, [place for group in sharing.groups for place in group[1:]]
        )
        if not sharing.covers_all or not whole:
            return function
    return function.with_body(body)


def _rests(body: Any, tile: Any, lanes: int) -> tuple[int, list[int]] | None:
    """Tell how many outputs lie beside whole vectors, and where a tile has their sums."""
    found: dict[int, set[int]] = {}

    def on_load(load: Any) -> None:
        at = constant_run(load, tile)
        if at is not None and at[1] in SHARED_RESTS.get(lanes, ()):
            found.setdefault(at[1], set()).add(at[0])

    structural_walk(body, (tvm.ir.TensorLoad, on_load))
    if len(found) != 1:
        return None
    ((rest, places),) = found.items()
    return rest, sorted(places)


def _count_stores(body: Any, tile: Any) -> int:
    count = 0

    def on_store(store: tirx.BufferStore) -> None:
        nonlocal count
        count += store.buffer.same_as(tile)

    structural_walk(body, (tirx.BufferStore, on_store))
    return count


def _reads_any(body: Any, tile: Any, places: list[int]) -> bool:
    """Whether what stands at some places of a tile may be read."""
    runs = [constant_run(load, tile) for load in loads_in(body) if load.source.same_as(tile)]
    return any(run is None or run[0] in places for run in runs)


class _Sharing:
    """Rewrites the statements of one tile.

    Parameters
    ----------
    tile : buffer
        Where sums stand.
    lanes : int
        Of a vector.
    rest : int
        Outputs beside whole vectors.
    places : list of int
        Where the sums of these begin in the tile, a vector for each pixel.
    """

    def __init__(self, tile: Any, lanes: int, rest: int, places: list[int]) -> None:
        pixels = lanes // rest
        self.tile, self.lanes, self.rest = tile, lanes, rest
        self.groups = [places[i : i + pixels] for i in range(0, len(places), pixels)]
        self.place_of = {place: (g, j) for g, group in enumerate(self.groups)
                         for j, place in enumerate(group)}  # fmt: skip
        self.covers_all = True
        #: Stores to the tile that there should be.
        self.written = 0
        self._starts: dict[int, Any] = {}
        self._analyzer = tvm.sym.Analyzer()

    def output(self, load: Any) -> Any:
        """Take a pixel's outputs from the vector that it shares."""
        at = constant_run(load, self.tile)
        if at is None or at[1] != self.rest:
            return load
        group, pixel = self.place_of[at[0]]
        return picked([self._sums(group)], range(pixel * self.rest, (pixel + 1) * self.rest))

    def sequence(self, statements: tirx.SeqStmt) -> Any:
        """Rewrite statements that follow each other."""
        known: dict[Any, Any] = {}
        steps: dict[int, list[Product]] = {}
        replaced: dict[int, list[Any]] = {}
        for position, statement in enumerate(statements.seq):
            if isinstance(statement, tirx.Bind):
                known[statement.var] = with_values(statement.value, known)
            if not isinstance(statement, tirx.BufferStore):
                continue
            if not statement.buffer.same_as(self.tile):
                continue
            at = constant_run(statement, self.tile)
            if at is None or at[1] != self.lanes or at[0] not in self.place_of:
                self.written += 1
                continue
            product = product_of(statement, self.tile, position, known)
            if product is not None:
                steps.setdefault(at[0], []).append(product)
                replaced[position] = []
            else:
                replaced[position] = self._start(at[0], statement.value)
        for group, places in enumerate(self.groups):
            if any(place in steps for place in places):
                self._add(group, [steps.get(place, []) for place in places], replaced)
        if not replaced:
            return statements
        left = [
            new
            for position, statement in enumerate(statements.seq)
            for new in replaced.get(position, [statement])
        ]
        return tirx.SeqStmt(left) if len(left) > 1 else left[0]

    def _sums(self, group: int) -> Any:
        return tirx.BufferLoad(self.tile, [self._place(group)])

    def _place(self, group: int) -> Any:
        return tirx.Ramp(tirx.IntImm("int32", self.groups[group][0]), 1, self.lanes)

    def _start(self, place: int, value: Any) -> list[Any]:
        """Let the sums of all pixels of a vector start from what one starts from."""
        group, pixel = self.place_of[place]
        if not structural_equal(self._starts.setdefault(group, value), value):
            self.covers_all = False
        if isinstance(value, tvm.ir.TensorLoad) and isinstance(value.indices[0], tirx.Ramp):
            at = value.indices[0]
            some = tirx.BufferLoad(value.source, [tirx.Ramp(at.base, at.stride, self.rest)])
            value = picked([some] * (self.lanes // self.rest), range(self.lanes))
        elif not isinstance(value, tirx.Broadcast):
            self.covers_all = False
        if pixel:
            return []
        self.written += 1
        return [tirx.BufferStore(self.tile, value, [self._place(group)])]

    def _add(
        self, group: int, members: Sequence[Sequence[Product]], replaced: dict[int, list[Any]]
    ) -> None:
        """Add the products of all pixels of a vector."""
        count = len(members[0])
        if any(len(member) != count for member in members):
            self.covers_all = False
            return
        # Where they are no whole number of fours, the last four begin among those before.
        fours = [(start, min(start, count - QUARTER)) for start in range(0, count, QUARTER)]
        if count >= QUARTER and all(self._neighbours(m, f) for m in members for _, f in fours):
            self._add_fours(group, members, fours, replaced)
        elif self.lanes in BLENDED_LANES:
            self._add_blended(group, members, replaced)
        else:
            self.covers_all = False

    def _add_blended(
        self, group: int, members: Sequence[Sequence[Product]], replaced: dict[int, list[Any]]
    ) -> None:
        """Add products one input at a time, each of the pixel that a lane belongs to."""
        for step in zip(*members, strict=True):
            inputs = [tirx.Broadcast(product.value, self.lanes) for product in step]
            pixels = [self._pixel(lane, step) for lane in range(self.lanes)]
            lanes = [pixel * self.lanes + lane for lane, pixel in enumerate(pixels)]
            self._add_step(group, step, picked(inputs, lanes), replaced)

    def _add_step(
        self, group: int, step: Sequence[Product], inputs: Any, replaced: dict[int, list[Any]]
    ) -> None:
        self.covers_all &= all(self._same_weights(step[0], other) for other in step)
        some = tirx.BufferLoad(step[0].weight, [tirx.Ramp(step[0].outputs, 1, self.rest)])
        weights = picked([some] * (self.lanes // self.rest), range(self.lanes))
        total = self._sums(group) + inputs * weights
        store = tirx.BufferStore(self.tile, total, [self._place(group)])
        replaced[step[-1].position].append(store)
        self.written += 1

    def _add_fours(
        self,
        group: int,
        members: Sequence[Sequence[Product]],
        fours: Sequence[tuple[int, int]],
        replaced: dict[int, list[Any]],
    ) -> None:
        """Add products four inputs at a time: from which on, and where their loads begin."""
        for start, first in fours:
            inputs = []
            for loads in self._loads(members, first):
                taken = picked(loads, range(self.lanes))
                inputs.append(tirx.Var("inputs", taken.ty))
                replaced[members[0][start].position].append(tirx.Bind(inputs[-1], taken))
            for number in range(start - first, QUARTER):
                step = [member[first + number] for member in members]
                self._add_step(group, step, picked(inputs, self._lanes_of(number)), replaced)

    def _pixel(self, lane: int, pixels: Sequence[Any]) -> int:
        """Tell whose sum a lane has; where pixels are too few, the last one stands in for them."""
        return min(lane // self.rest, len(pixels) - 1)

    def _loads(self, members: Sequence[Sequence[Product]], first: int) -> list[list[Any]]:
        """Load four inputs of each pixel, for each vector of inputs."""
        vectors = []
        # Of the pixels whose sums stand in one quarter, each has its inputs in another vector.
        for place in range(max(1, QUARTER // self.rest)):
            lanes = range(place * self.rest, self.lanes, QUARTER)
            chunks = [members[self._pixel(lane, members)][first] for lane in lanes]
            vectors.append([
                tirx.BufferLoad(chunk.image, [tirx.Ramp(chunk.index, 1, QUARTER)])
                for chunk in chunks
            ])  # fmt: skip
        return vectors

    def _lanes_of(self, number: int) -> list[int]:
        """Tell where in the vectors of inputs the one of this number stands, lane by lane."""
        return [
            lane % QUARTER // self.rest * self.lanes + lane // QUARTER * QUARTER + number
            for lane in range(self.lanes)
        ]

    def _neighbours(self, member: Sequence[Product], first: int) -> bool:
        start = member[first]
        return start.image is not None and all(
            start.image.same_as(other.image) and self._equal(other.index, start.index + number)
            for number, other in enumerate(member[first : first + QUARTER])
        )

    def _same_weights(self, one: Product, other: Product) -> bool:
        return bool(one.weight.same_as(other.weight)) and self._equal(one.outputs, other.outputs)

    def _equal(self, one: Any, other: Any) -> bool:
        return bool(self._analyzer.can_prove_equal(one, other))
