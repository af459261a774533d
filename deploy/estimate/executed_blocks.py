"""What the counting plugin writes: how often each translation block ran, what memory made wait."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Unused system calls by which the guest starts and ends a count (also in counter.c, runner.c and
# loaded_libraries.c).
MARK_BEGIN = 7001
MARK_END = 7002
# ... and has caches simulated from then on.
MARK_SIMULATE = 7003
_MEMORY = "memory "
PAGE = 4096


class MemoryEvents(NamedTuple):
    """What loads and stores of one process had to wait for: simulated.

    Attributes
    ----------
    l1_misses, l2_misses : int
        Lines that the first and the second level of data cache lacked.
    page_misses : int
        Pages whose place the first level of translation lacked.
    blocked_loads : int
        Loads of which the latest stores wrote a part only, or not all in one: they get their bytes
        when these have reached the cache.
    l3_misses : int or None
        Lines that the third level lacked too; None where there is none.
    """

    l1_misses: int
    l2_misses: int
    page_misses: int
    blocked_loads: int
    l3_misses: int | None = None


@dataclass(frozen=True)
class Block:
    """A straight run of instructions, as QEMU translated it.

    Attributes
    ----------
    address : int
        Of its first instruction.
    size : int
        Bytes of its code.
    instructions : int
        How many instructions it holds.
    executions : int
        How often it ran between the two marks.
    """

    address: int
    size: int
    instructions: int
    executions: int


def read_blocks(text: str) -> tuple[Block, ...]:
    """Read a count's file, sorted by address.

    Raises
    ------
    ValueError
        When the file was cut off.
    """
    fields = (line.split() for line in _whole_lines(text) if not line.startswith(_MEMORY))
    blocks = [Block(int(address, 16), *map(int, figures)) for address, *figures in fields]
    blocks.sort(key=lambda block: (block.address, block.instructions))
    return tuple(_without_beginnings(blocks))


def _without_beginnings(blocks: Sequence[Block]) -> Iterable[Block]:
    """Take off what QEMU tells twice: an instruction across two pages.

    It is a block of its own; what runs before it has been told with its first bytes as one
    instruction more.
    """
    across = [b.address for b in blocks if b.instructions == 1 and _lies_across_pages(b)]
    for block in blocks:
        place = bisect.bisect_right(across, block.address)
        if place < len(across) and across[place] < block.address + block.size:
            yield dataclasses.replace(
                block, size=across[place] - block.address, instructions=block.instructions - 1
            )
        else:
            yield block


def _lies_across_pages(block: Block) -> bool:
    return block.address // PAGE != (block.address + block.size - 1) // PAGE


def read_memory_events(text: str) -> MemoryEvents | None:
    """Read what was simulated of the memory, None where nothing was.

    Raises
    ------
    ValueError
        When the file was cut off.
    """
    for line in _whole_lines(text):
        if line.startswith(_MEMORY):
            return MemoryEvents(*map(int, line.removeprefix(_MEMORY).split()))
    return None


def _whole_lines(text: str) -> list[str]:
    lines = text.splitlines()
    if not lines or lines[-1] != "end":
        raise ValueError("the counts are cut off")
    return lines[:-1]


def instructions_in(blocks: Iterable[Block]) -> int:
    """Return the number of instructions executed."""
    return sum(block.instructions * block.executions for block in blocks)
