"""Regions of x86 code by its jumps: what each loop executes on its way round is one region.

Counts alone (`cycles.fold_loops`) take what a branch skips now and then for the end of a loop, and
the pieces around it are costed apart, each as if it fed itself: sums seem to wait for themselves.
Here a jump backwards tells where a loop begins and ends:

    before                          after
    a: ...        executed 392      a, b, c: one region, 392 times (b: 364; their mean by bytes)
       jump d
    b: ...        executed 364      d: a region, 28 times
    c: ...        executed 392
       jump a
    d: ...        executed 28, then jumps to c

A loop in a loop is written out into what surrounds it where it is short, as `fold_loops` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from shuffledeploy.deploy.estimate.code_images import Image
from shuffledeploy.deploy.estimate.cycles import LONGEST_REGION, Region, straight_runs
from shuffledeploy.deploy.estimate.executed_blocks import Block

# A piece of a loop that is executed in fewer of its rounds than this part is a region of its own.
_OFTEN = 0.5
# By what part the rounds of an inner loop may differ from a whole number where it is written out.
_WHOLE = 0.05
# Bytes within which a kernel jumps. What looks like a jump further than that is no jump.
_FARTHEST = 1 << 20


class Loop(NamedTuple):
    """Where a loop begins, and where the last jump back to that ends: addresses."""

    begin: int
    end: int

    def has(self, begin: int, end: int) -> bool:
        """Whether code lies in it."""
        return self.begin <= begin and end <= self.end

    def crosses(self, other: Loop) -> bool:
        """Whether it shares code with another loop, and neither lies in the other."""
        apart = self.end <= other.begin or other.end <= self.begin
        return not (apart or self.has(*other) or other.has(*self))


class Piece(NamedTuple):
    """Code that was always executed as a whole."""

    address: int
    code: bytes
    executions: int


def regions_by_jumps(blocks: Sequence[Block], image: Image) -> list[Region]:
    """Turn translation blocks of x86 code into the regions that are costed.

    Parameters
    ----------
    blocks : sequence of Block
        What was executed.
    image : Image
        The code that they lie in.

    Returns
    -------
    list of Region
        Together they execute as many bytes as the blocks, but for some hundredths where an inner
        loop has no whole number of rounds.
    """
    loops = find_loops(blocks, image)
    borders = sorted({border for loop in loops for border in loop})
    pieces = []
    for run in straight_runs(blocks):
        end = run.address + run.size
        cuts = [run.address, *(at for at in borders if run.address < at < end), end]
        pieces += [
            Piece(begin, image.code(begin, stop - begin), run.executions)
            for begin, stop in itertools.pairwise(cuts)
        ]
    return _regions(pieces, loops)


def find_loops(blocks: Iterable[Block], image: Image) -> list[Loop]:
    """Find where code jumps backwards; loops of one beginning are one."""
    ends: dict[int, int] = {}
    for block in blocks:
        end = block.address + block.size
        target = _jump_target(image.code(block.address, block.size), end)
        if target is not None and target < end and block.executions > 1:
            ends[target] = max(end, ends.get(target, 0))
    return [Loop(begin, end) for begin, end in ends.items()]


def _jump_target(code: bytes, end: int) -> int | None:
    """Tell where the jump goes that ends a block; None where none does."""
    far_branch = code[-6:-5] == b"\x0f" and code[-5] >> 4 == 0x8
    if far_branch or code[-5:-4] == b"\xe9":
        distance = int.from_bytes(code[-4:], "little", signed=True)
        if abs(distance) < _FARTHEST:
            return end + distance
    if len(code) > 1 and (code[-2] >> 4 == 0x7 or code[-2] == 0xEB):
        return end + int.from_bytes(code[-1:], "little", signed=True)
    return None


def _regions(pieces: Sequence[Piece], loops: Sequence[Loop]) -> list[Region]:
    """Give the regions of a loop's pieces, in which other loops lie: its own first."""
    inner = _outermost(loops)
    own = [p for p in pieces if not any(_lies_in(p, loop) for loop in inner)]
    within = [
        _regions([p for p in pieces if _lies_in(p, loop)], _loops_in(loop, loops)) for loop in inner
    ]
    if not own:
        return [region for regions in within for region in regions]
    most = max(piece.executions for piece in own)
    body = [piece for piece in own if piece.executions >= _OFTEN * most]
    rounds = sum(len(p.code) * p.executions for p in body) / sum(len(p.code) for p in body)
    parts = [(piece.address, piece.code) for piece in body]
    others = _joined([piece for piece in own if piece.executions < _OFTEN * most])
    for loop, (first, *more) in zip(inner, within, strict=True):
        times = first.executions / rounds
        whole = round(times) > 0 and abs(times - round(times)) < _WHOLE * times
        if whole and len(first.code) * round(times) <= LONGEST_REGION:
            parts.append((loop.begin, first.code * round(times)))
        else:
            others.append(first)
        others += more
    return [Region(code, rounds) for code in _cut([code for _, code in sorted(parts)])] + others


def _outermost(loops: Iterable[Loop]) -> list[Loop]:
    """Give the loops that lie in no other; those that cross as one."""
    found: list[Loop] = []
    for loop in sorted(loops):
        if found and loop.begin < found[-1].end:
            found[-1] = Loop(found[-1].begin, max(found[-1].end, loop.end))
        else:
            found.append(loop)
    return found


def _loops_in(whole: Loop, loops: Iterable[Loop]) -> list[Loop]:
    """Give the loops in one; of those that cross and are that one together, the first."""
    within = sorted(loop for loop in loops if whole.has(*loop) and loop != whole)
    if _outermost(within) != [whole]:
        return within
    kept: list[Loop] = []
    for loop in within:
        if not any(loop.crosses(other) for other in kept):
            kept.append(loop)
    return kept


def _lies_in(piece: Piece, loop: Loop) -> bool:
    return loop.has(piece.address, piece.address + len(piece.code))


def _joined(pieces: Iterable[Piece]) -> list[Region]:
    """Give pieces as regions, neighbours that were executed equally often as one."""
    found: list[Region] = []
    end = None
    for piece in pieces:
        if found and piece.address == end and found[-1].executions == piece.executions:
            found[-1] = Region(found[-1].code + piece.code, piece.executions)
        else:
            found.append(Region(piece.code, piece.executions))
        end = piece.address + len(piece.code)
    return found


def _cut(codes: Iterable[bytes]) -> list[bytes]:
    """Put codes together, as many as a region may have bytes."""
    found = [b""]
    for code in codes:
        if found[-1] and len(found[-1]) + len(code) > LONGEST_REGION:
            found.append(b"")
        found[-1] += code
    return found
