"""What the schedule forms share: how they take their free numbers, tiles, padding, copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.memory_layout import ELEMENT_BYTES, FLOAT
from shuffledeploy.compiler.ir.tir import LOCAL

MOST_PIXELS_IN_TILE = 28
# Vectors of a tile that are never too many.
FEW_VECTORS = 4
# Longest sum over a window that is written out.
MOST_WRITTEN_OUT = 25
# Of vectors that move under a mask (x86 with AVX-512).
MASKED_LANES = 16
# Outputs beside whole vectors that pixels can share one for, by lanes of a vector (x86).
SHARED_RESTS = {MASKED_LANES: (4, 8), 8: (2, 4)}
# Lanes of vectors of which two are blended beside the units that multiply: those of AVX2.
BLENDED_LANES = (8,)
# Floats in a quarter of a vector, within which shuffles are cheap.
QUARTER = 4
# Vectors in one step of a copy.
VECTORS_IN_COPY = 8


@dataclasses.dataclass(frozen=True)
class Core:
    """What a schedule has to know of a core.

    Attributes
    ----------
    lanes : int
        Elements in a vector register.
    registers : int
        Vector registers.
    shuffles_beside : bool
        Whether shuffles of whole vectors have a unit beside those that multiply.
    element : str
        Type of the elements that are meant.
    dot_products : bool
        Whether one instruction adds up four products of int8 in each lane of 32 bits.
    in_order : bool
        Whether the core issues in order. A load of a whole vector then takes two cycles, that of
        half a vector one or none.
    """

    lanes: int
    registers: int
    shuffles_beside: bool = False
    element: str = FLOAT
    dot_products: bool = False
    in_order: bool = False

    @property
    def multiplies_by_lane(self) -> bool:
        """Whether a multiply-add can take one lane of a vector for all of another's (AArch64)."""
        return (self.lanes * ELEMENT_BYTES[self.element], self.registers) == (16, 32)

    @property
    def multiplies_pairs(self) -> bool:
        """Whether kernels add up products of int8 by pairs: on AArch64 without dot products."""
        return self.multiplies_by_lane and not self.dot_products

    @property
    def multiplies_int8(self) -> bool:
        """Whether kernels read int8 and add up its products; others compute with float32."""
        return self.dot_products or self.multiplies_pairs

    @property
    def masks(self) -> bool:
        """Whether vectors are read and written under masks: AVX-512, the only one of 16 lanes."""
        return (self.lanes, self.element) == (MASKED_LANES, FLOAT)

    @property
    def overlaps(self) -> bool:
        """Whether the last vector of a pixel's channels overlaps the one before, in windows.

        AVX-512 has masks instead. On AArch64 loads and stores of half a vector cost no more than
        those of a whole one.
        """
        return self.element == FLOAT and not (self.masks or self.multiplies_by_lane)

    @property
    def shared_rests(self) -> tuple[int, ...]:
        """Outputs beside whole vectors that pixels can share one for."""
        if self.multiplies_by_lane or self.element != FLOAT:
            return ()
        return SHARED_RESTS.get(self.lanes, ())

    @property
    def blends(self) -> bool:
        """Whether pixels that share a vector may have any inputs, not neighbours alone."""
        return bool(self.shared_rests) and self.lanes in BLENDED_LANES

    def of(self, element: str) -> Core:
        """Give the same core as it is for elements of another type."""
        if element == self.element or element not in ELEMENT_BYTES:
            return self
        lanes = self.lanes * ELEMENT_BYTES[self.element] // ELEMENT_BYTES[element]
        return dataclasses.replace(self, lanes=lanes, element=element)


class Choose(Protocol):
    """Gives a free number of a schedule."""

    def __call__(self, options: Sequence[int], default: int) -> Any:
        """Return one of `options`, or a random variable over them."""


Form = Callable[[Schedule, Choose], None]


def divisors(number: int, most: int) -> list[int]:
    """List the divisors of a number up to `most`."""
    return [d for d in range(1, min(number, most) + 1) if number % d == 0]


def extents_of(schedule: Schedule, block: Any) -> list[int]:
    """List the extents of the loops around a block."""
    return [int(schedule.get(loop).extent) for loop in schedule.get_loops(block)]


def tile_in_registers(schedule: Schedule, block: Any) -> None:
    """Vectorize the innermost of the last three loops of a block and write out the other two."""
    *_, pixels, vectors, lane = schedule.get_loops(block)
    schedule.vectorize(lane)
    schedule.unroll(vectors)
    schedule.unroll(pixels)


def vectorize_copy(schedule: Schedule, block: Any, lanes: int) -> None:
    """Copy in long vectors, which LLVM cuts into the target's own and pairs.

    Columns and channels that stand together in memory are joined first.
    """
    *outer, loop = schedule.get_loops(block)
    # Two at most: of three, TVM's simplifier no longer sees that the elements are neighbours.
    innermost = int(schedule.get(block).writes[0].source.shape[-1])
    if len(outer) > 1 and int(schedule.get(loop).extent) == innermost:
        loop = schedule.fuse(outer[-1], loop)
    extent = int(schedule.get(loop).extent)
    whole = [d for d in divisors(extent, VECTORS_IN_COPY * lanes) if d % lanes == 0]
    longest = max(whole or divisors(extent, VECTORS_IN_COPY * lanes))
    schedule.vectorize(schedule.split(loop, [None, longest])[1])


def reduce_by_lanes(schedule: Schedule, block: Any) -> None:
    """Go through a row by vectors, of which each lane is reduced for itself.

    The last two loops of the block are over lanes and over vectors.
    """
    *_, lane, vector = schedule.get_loops(block)
    schedule.reorder(vector, lane)
    schedule.vectorize(lane)
    # Else the lanes would share the memory of larger buffers, and be stored in every step.
    schedule.set_scope(block, 0, LOCAL)
    first = schedule.decompose_reduction(block, vector)
    schedule.vectorize(schedule.get_loops(first)[-1])


def reduce_lanes(schedule: Schedule, block: Any) -> None:
    """Reduce what `reduce_by_lanes` left, lane after lane: the last loop of the block."""
    *_, lane = schedule.get_loops(block)
    schedule.unroll(lane)
    schedule.decompose_reduction(block, lane)
