"""Regions of x86 code by its jumps: bodies of loops are whole, and nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from shuffledeploy.deploy.estimate.code_images import Image
from shuffledeploy.deploy.estimate.cycles import Region
from shuffledeploy.deploy.estimate.executed_blocks import Block
from shuffledeploy.deploy.estimate.loop_paths import Loop, find_loops, regions_by_jumps

pytestmark = pytest.mark.smoke

NOP = b"\x90"


def jump(distance: int, *, near: bool = True) -> bytes:
    """``jne``, by so many bytes from its end, in either of its forms."""
    if near:
        return b"\x75" + distance.to_bytes(1, "little", signed=True)
    return b"\x0f\x85" + distance.to_bytes(4, "little", signed=True)


def laid_out(parts: Sequence[tuple[bytes, int]]) -> tuple[list[Block], Image]:
    """Give code that lies together as blocks, each with its executions, and as an image."""
    blocks, code = [], b""
    for part, executions in parts:
        blocks.append(Block(len(code), len(part), 1, executions))
        code += part
    return blocks, Image(((0, code),))


def executed_bytes(regions: Sequence[Region]) -> float:
    return sum(len(region.code) * region.executions for region in regions)


def test_what_a_branch_skips_now_and_then_does_not_part_a_loop() -> None:
    # Of 100 rounds, ten leave out the second part.
    first, second, third = NOP * 6 + jump(8), NOP * 8, NOP * 6 + jump(-24)
    blocks, image = laid_out([(first, 100), (second, 90), (third, 100)])
    assert find_loops(blocks, image) == [Loop(0, 24)]
    (region,) = regions_by_jumps(blocks, image)
    assert region.code == first + second + third
    assert region.executions == pytest.approx((100 + 90 + 100) / 3)


def test_what_a_loop_seldom_does_is_a_region_of_its_own() -> None:
    usual, rare, last = NOP * 4 + jump(4), NOP * 4, NOP * 2 + jump(-14)
    blocks, image = laid_out([(usual, 50), (rare, 4), (last, 50)])
    assert regions_by_jumps(blocks, image) == [Region(usual + last, 50), Region(rare, 4)]


@pytest.mark.parametrize("near", [True, False])
def test_a_short_loop_in_a_loop_is_written_out(near: bool) -> None:
    size = 2 if near else 6
    before, inner = NOP * 4, NOP * 3 + jump(-3 - size, near=near)
    after = NOP * 2 + jump(-4 - len(inner) - 2 - size, near=near)
    blocks, image = laid_out([(before, 10), (inner, 40), (after, 10)])
    assert regions_by_jumps(blocks, image) == [Region(before + inner * 4 + after, 10)]
    # Three and a half rounds cannot be written out, nor can so many.
    for executions in (35, 40_000):
        blocks, image = laid_out([(before, 10), (inner, executions), (after, 10)])
        assert regions_by_jumps(blocks, image) == [
            Region(before + after, 10), Region(inner, executions),
        ]  # fmt: skip


def test_loops_that_cross_lose_nothing() -> None:
    # The second loop begins in the first and ends after it.
    parts = [(NOP * 4, 10), (NOP * 4, 30), (NOP * 2 + jump(-12), 30), (NOP * 2 + jump(-12), 20)]
    blocks, image = laid_out(parts)
    assert len(find_loops(blocks, image)) == 2
    regions = regions_by_jumps(blocks, image)
    assert executed_bytes(regions) == pytest.approx(sum(b.size * b.executions for b in blocks))


def test_code_without_a_loop_is_one_region() -> None:
    blocks, image = laid_out([(NOP * 4 + jump(4), 1), (NOP * 4, 1), (NOP, 1)])
    assert regions_by_jumps(blocks, image) == [Region(NOP * 4 + jump(4) + NOP * 5, 1)]
