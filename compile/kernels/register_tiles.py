"""Register tiles of convolutions: how many pixels by how many vectors of outputs, and their loads.

A core that multiplies by lanes (AArch64) takes its inputs four at a time: a tile loads a vector of
channels of each pixel, and multiply-adds pick one. Each pair of vectors of weights is used up by
all pixels before the next is loaded, so that two registers are enough for weights::

    for four channels:
        inputs[m] = x[pixel, channels]                  # m registers
        for channel, for pair of vectors of outputs:
            weights[2] = w[channel, pair]               # two registers, one instruction
            for pixel: total[pixel, pair] += inputs[pixel][channel] * weights

Tiles of 6 pixels by 4 vectors then fill 32 registers, and take 1.15 instructions a multiply-add.

On a core that issues in order a load of 128 bits takes two cycles. One of 64 bits takes one, and a
Cortex-A55 starts it together with a multiply-add. There inputs are loaded two channels at a time,
and tiles of few vectors and many pixels are best, for each vector of weights then serves more
multiply-adds::

    for two channels:
        inputs[m] = x[pixel, channels]                  # half a register each
        for channel, for pair of vectors of outputs: ...

Tiles of 9 pixels by 2 vectors take 1.32 cycles a multiply-add on a Cortex-A55, those of 6 by 4 1.64
(estimated: 256 to 256 channels).
"""

from __future__ import annotations

import dataclasses
import operator

from shuffledeploy.compiler.ir.memory_layout import HALF
from shuffledeploy.compiler.kernels.tiling import MOST_PIXELS_IN_TILE, QUARTER, Core, divisors

# Vectors that one instruction loads on a core that multiplies by lanes.
PAIR = 2
# Chains of additions that hide their latency: four cycles, two units.
FEWEST_SUMS = 8
# What the last registers cost, in loads for each multiply-add.
CROWDED = 0.04
# Registers for what pairs of int8 are multiplied in: two pairs in all lanes and products, and room
# for LLVM, which starts the next products early.
PAIRED = 8
# Sums of halves from which LLVM copies registers, for inputs must stand in the first sixteen; and
# pixels, where a core issues in order and tiles are of few vectors.
HALF_CROWDED, HALF_PIXELS = 24, 7
# What sums cost that do not stay in registers.
SPILLED = 1.0
SPILLED_IN_ORDER = 0.2
# Pieces of memory that are read or written line after line, of which a prefetcher keeps track.
STREAMS = 16
# What more of them cost.
UNSEEN = 0.1
# Cycles that loads add on a core that issues in order: of vectors of weights, of inputs that fill a
# register and of those that fill half of one (estimated, Cortex-A55, 256 to 256 channels). Half a
# register costs a Cortex-A53 1.3: it starts no load of a vector beside a multiply-add.
WEIGHTS_IN_ORDER, INPUTS_IN_ORDER, HALVES_IN_ORDER = 2.0, 2.6, 0.4
# Registers that tiles leave there, or LLVM, which starts loads early, spills; more where a sum is
# so short that LLVM writes it out.
SPARE_IN_ORDER, SPARE_IN_SHORT_SUMS = 3, 7
# Channels from which a sum is no short one.
LONG_SUM = 40


@dataclasses.dataclass(frozen=True)
class SharedVectors:
    """Outputs beside whole vectors, for which pixels share one.

    Attributes
    ----------
    rest : int
        How many a pixel has.
    loads_fours : bool
        Whether four inputs of a pixel are loaded at once; else they are blended one by one.
    core : Core
        With its lanes and registers.
    """

    rest: int
    loads_fours: bool
    core: Core

    def _shared(self, pixels: int) -> int:
        return -(-pixels * self.rest // self.core.lanes)

    def sums(self, pixels: int, vectors: int) -> int:
        """Count the registers with sums of a tile.

        With masks all tiles have to fit without sharing, too: the search chooses of both.
        """
        if self.core.masks:
            return pixels * vectors
        return pixels * (vectors - 1) + self._shared(pixels)

    def spills(self, pixels: int, vectors: int) -> bool:
        """Tell whether LLVM spills: some registers hold inputs and what is picked of them."""
        shared = self._shared(pixels)
        sums = pixels * (vectors - 1) + shared
        if self.core.masks:
            return sums + shared + vectors + 1 > self.core.registers - 10
        inputs = shared * max(1, QUARTER // self.rest) if self.loads_fours else PAIR
        return sums + inputs + vectors > self.core.registers


def tile_costs(
    span: int,
    fills_row: bool,
    vectors: int,
    core: Core,
    staged: int,
    shared: SharedVectors | None,
    rows: int = 0,
    *,
    in_pairs: bool = False,
    depth: int = LONG_SUM,
) -> dict[int, float]:
    """Count loads for each multiply-add of the register tiles that fit, by their pixels.

    Parameters
    ----------
    span : int
        Pixels one after another.
    fills_row : bool
        Whether only tiles will do of which the span has a whole number.
    vectors : int
        Of outputs in a tile.
    core : Core
        With its registers.
    staged : int
        Inputs that a tile loads as one vector; 0 where it loads them one by one.
    shared : SharedVectors, optional
        Outputs beside whole vectors, where pixels share one for them.
    rows : int
        Tensors of which each pixel has a row of its own that tiles go through, one after another.
    in_pairs : bool
        Whether words of int8 are multiplied as two pairs, each first copied to all lanes.
    depth : int
        Channels that a sum reads.
    """
    costs, sums_of = {}, shared.sums if shared else operator.mul
    for pixels in range(1, min(span, MOST_PIXELS_IN_TILE) + 1):
        tiles, rest = divmod(span, pixels)
        if rest and fills_row:
            continue
        beside = pixels + _weights(vectors) if staged else vectors + 1
        registers = sums_of(pixels, vectors) + beside + (PAIRED if in_pairs else 0)
        if registers > core.registers:
            continue
        crowded = _crowding(pixels, vectors, registers, core, staged, depth)
        if shared:
            crowded = SPILLED if shared.spills(pixels, vectors) else 0.0
        total = sum(
            count
            * (_loads(tile, vectors, staged, core) + max(0, FEWEST_SUMS - sums_of(tile, vectors)))
            for count, tile in ((tiles, pixels), (1, rest))
            if tile
        )
        # Beside the rows of pixels there are weights.
        unseen = UNSEEN if pixels * rows + 1 > STREAMS else 0.0
        copies = PAIR / vectors if in_pairs else 0.0
        costs[pixels] = total / (span * vectors) + crowded + unseen + copies
    return costs


def _crowding(
    pixels: int, vectors: int, registers: int, core: Core, staged: int, depth: int
) -> float:
    """Tell what the last registers that a tile takes cost."""
    if staged and core.element == HALF and core.in_order and pixels > HALF_PIXELS:
        return SPILLED
    spare = SPARE_IN_ORDER if depth >= LONG_SUM else SPARE_IN_SHORT_SUMS
    if staged and core.in_order and registers > core.registers - spare:
        return SPILLED_IN_ORDER
    if staged and core.element == HALF and pixels * vectors >= HALF_CROWDED:
        return CROWDED
    # Long vectors can take a pixel from memory within the multiply-add: more registers gain little.
    return CROWDED if core.lanes > 8 and registers > core.registers - 6 else 0.0


def row_tile_costs(
    columns: int, vectors: int, core: Core, width: int, stride: int
) -> dict[int, float]:
    """Count loads for each multiply-add of tiles that load a row of the image as vectors.

    Parameters
    ----------
    columns : int
        Pixels of a row, of which a tile takes a whole part.
    vectors : int
        Of outputs in a tile.
    core : Core
        With its registers.
    width, stride : int
        Of the window, in columns.
    """
    costs = {}
    for pixels in divisors(columns, MOST_PIXELS_IN_TILE):
        read = -(-((pixels - 1) * stride + width) // core.lanes)
        if pixels * vectors + read + _weights(vectors) > core.registers:
            continue
        loads = read + width * -(-vectors // PAIR)
        costs[pixels] = (loads + max(0, FEWEST_SUMS - pixels * vectors)) / (
            width * pixels * vectors
        )
    return costs


def _weights(vectors: int) -> int:
    """Count the registers for weights; a vector that has no pair is loaded beside the next pair."""
    return vectors if vectors < PAIR else PAIR + vectors % PAIR


def _loads(pixels: int, vectors: int, staged: int, core: Core) -> float:
    if not staged:
        return pixels + vectors
    if core.in_order:
        each = HALVES_IN_ORDER if staged < core.lanes else INPUTS_IN_ORDER
        return pixels / staged * each + vectors * WEIGHTS_IN_ORDER
    return pixels / staged + -(-vectors // PAIR)
