"""Schedule forms of the window kernel: a strip of pixels by one long vector of channels."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.attributes import WORDS, attribute
from shuffledeploy.compiler.kernels.blocks import ACCUMULATE, OUTPUT, TAKEN
from shuffledeploy.compiler.kernels.int8_products import FOUR, PAIRS_OF_WORD
from shuffledeploy.compiler.kernels.tiling import (
    MOST_PIXELS_IN_TILE,
    MOST_WRITTEN_OUT,
    Choose,
    Core,
    Form,
    divisors,
    extents_of,
    tile_in_registers,
)


def window_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """List the forms of a window kernel, the one with the fewest loads a sum first."""
    parts = attribute(function, WORDS)
    if parts:
        return (_pair_forms if parts == PAIRS_OF_WORD else _word_forms)(function, core)
    probe = Schedule(tvm.IRModule({"main": function}))
    _, channels, kh, kw = extents_of(probe, probe.get_sblock(ACCUMULATE))
    # Tiles stay in one row, so that neighbouring windows share what they load.
    tiles = divisors(int(function.params[-1].shape[2]), MOST_PIXELS_IN_TILE)
    found = []
    # Where the last vector overlaps the one before, each goes alone.
    alone = channels > int(function.params[-1].shape[3])
    for width in (core.lanes,) if alone else divisors(channels, 8 * core.lanes):
        vectors = -(-width // core.lanes)
        if width % core.lanes and channels % core.lanes == 0:
            continue
        fitting = [m for m in tiles if m * vectors <= core.registers * 3 // 4]
        if not fitting:
            continue
        # Beside sums and weights, pixels that neighbouring windows share stand in registers.
        most = max((m for m in fitting if m * vectors <= core.registers // 2), default=1)
        cost = vectors * (2 + 2 / most) / width
        # LLVM takes what is no power of two in pieces, where vectors have no masks.
        rest = width % core.lanes
        in_pieces = rest and not (width > core.lanes and rest.bit_count() == 1)
        cost += 1.0 if in_pieces and not core.masks else 0.0
        # Between steps of a loop over the window such sums stand in memory.
        cost += 1.0 if rest and width > core.lanes and kh * kw > MOST_WRITTEN_OUT else 0.0
        found += [
            (cost, _window_form(width, fitting, most, kh * kw, outside))
            for outside in (True, False)
        ]
    return [form for _, form in sorted(found, key=lambda pair: pair[0])][:8]


def _word_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """List the forms of a depthwise convolution in int8, by loads and interleavings a sum."""
    probe = Schedule(tvm.IRModule({"main": function}))
    _, channels, words, kw = extents_of(probe, probe.get_sblock(ACCUMULATE))
    tiles, stride = _tiles_of_row(function)
    found = []
    for width in _widths(function, channels, core):
        vectors = -(-width // core.lanes)
        # Sums, weights, and two words of a column.
        fitting = [m for m in tiles if (m + words * kw + 2) * vectors <= core.registers] or [1]
        tile = fitting[-1]
        read = ((tile - 1) * stride + kw) * words
        # Vectors of eight bytes and more are interleaved in as many steps as four of sums take.
        steps = 2 * vectors + width % 2 if width >= 2 * core.lanes else 3 * vectors
        loads = FOUR * (1 + (width % (2 * core.lanes)).bit_count())
        cost = (read * (steps + loads / 2) / tile + words * kw * vectors) / width
        found += [
            (cost, _window_form(width, fitting, tile, words * kw, outside, in_words=True))
            for outside in (True, False)
        ]
    return [form for _, form in sorted(found, key=lambda pair: pair[0])][:8]


def _pair_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """List the forms of a depthwise convolution that multiplies two columns at a time, by loads."""
    probe = Schedule(tvm.IRModule({"main": function}))
    _, channels, kh, pairs = extents_of(probe, probe.get_sblock(ACCUMULATE))
    kw = int(function.params[1].shape[1])
    tiles, stride = _tiles_of_row(function)
    found = []
    for width in _widths(function, channels, core):
        vectors = -(-width // core.lanes)
        # Of sixteen channels a register: weights, two columns and products beside the sums.
        eights = -(-width // (4 * core.lanes))
        fitting = [m for m in tiles if m * vectors + (kh * kw + 4) * eights <= core.registers]
        tile = (fitting or [1])[-1]
        read = kh * (((tile - 1) * stride + kw) / tile + kw / tile) * eights
        in_pieces = (width % (2 * core.lanes)).bit_count()
        cost = (read + 3 * kh * pairs * eights * (1 + in_pieces)) / width
        found += [
            (cost, _window_form(width, fitting or [1], tile, kh * kw, outside))
            for outside in (True, False)
        ]
    return [form for _, form in sorted(found, key=lambda pair: pair[0])][:8]


def _tiles_of_row(function: tirx.PrimFunc) -> tuple[list[int], int]:
    """List how many pixels of a row a tile can have, and tell the stride of their windows."""
    columns = int(function.params[-1].shape[2])
    stride = -(-int(function.params[0].shape[2]) // columns)
    return divisors(columns, MOST_PIXELS_IN_TILE), stride


def _widths(function: tirx.PrimFunc, channels: int, core: Core) -> Sequence[int]:
    """List how many channels of int8 a tile can have, of those that are computed."""
    # Where the last vector overlaps the one before, each goes alone.
    overlaps = channels > int(function.params[-1].shape[3])
    return (2 * core.lanes,) if overlaps else divisors(channels, 4 * core.lanes)


def _window_form(
    width: int, tiles: list[int], tile: int, taps: int, pixels_outside: bool, in_words: bool = False
) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        accumulate, output = schedule.get_sblock(ACCUMULATE), schedule.get_sblock(OUTPUT)
        if in_words:
            schedule.compute_inline(schedule.get_sblock(TAKEN))
        p, c, kh, kw = schedule.get_loops(accumulate)
        p_out, p_in = schedule.split(p, [None, choose(tiles, tile)])
        c_out, c_in, c_lane = schedule.split(c, [None, 1, width])
        outer = [p_out, c_out] if pixels_outside else [c_out, p_out]
        # A pixel's window before the next pixel's: what they share stays in registers for a moment.
        schedule.reorder(*outer, kh, p_in, kw, c_in, c_lane)
        schedule.reverse_compute_at(output, outer[-1], preserve_unit_loops=True)
        schedule.set_scope(accumulate, 0, "local")
        schedule.vectorize(c_lane)
        for loop in (c_in, p_in, *((kw, kh) if taps <= MOST_WRITTEN_OUT else ())):
            schedule.unroll(loop)
        first = schedule.decompose_reduction(accumulate, kh)
        tile_in_registers(schedule, first)
        *_, out_p, out_c = schedule.get_loops(output)
        out_c, out_lane = schedule.split(out_c, [None, width])
        schedule.vectorize(out_lane)
        schedule.unroll(out_c)
        schedule.unroll(out_p)

    return apply
