"""What the counting plugin writes: how often each translation block ran, what memory made wait."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# Unused system calls by which the guest starts and ends a count (also in counter.c, runner.c and
# loaded_libraries.c).
MARK_BEGIN = 7001
MARK_END = 7002
# ... and has caches simulated from then on.
MARK_SIMULATE = 7003
PAGE = 4096


class MemoryEvents(NamedTuple):
    """What loads and stores had to wait for: simulated. The order is that of counter.c.

    Attributes
    ----------
    following_lines : int
        Lines that the first level of data cache lacked, at most four lines from one that it lacked
        lately: a prefetcher sees them coming.
    starting_lines : int
        Other lines that it lacked.
    l2_misses, l3_misses : int
        Lines that the second level lacked too, and the third; none where there is no third.
    dirty_lines : int
        Changed lines that left the last level for memory.
    page_misses : int
        Pages whose place the first level of translation lacked.
    blocked_loads : int
        Loads of which the latest stores wrote a part only, or not all in one: they get their bytes
        when these have reached the cache.
    """

    following_lines: int
    starting_lines: int
    l2_misses: int
    l3_misses: int
    dirty_lines: int
    page_misses: int
    blocked_loads: int

    @property
    def l1_misses(self) -> int:
        """Lines that the first level lacked."""
        return self.following_lines + self.starting_lines


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
    memory : MemoryEvents or None
        Of its loads and stores in all these executions; None where no caches were simulated. It
        varies a little with the addresses, so that blocks are compared without it.
    """

    address: int
    size: int
    instructions: int
    executions: int
    memory: MemoryEvents | None = field(default=None, compare=False)


def read_blocks(text: str) -> tuple[Block, ...]:
    """Read a count's file, sorted by address.

    Raises
    ------
    ValueError
        When the file was cut off.
    """
    blocks = [_read_block(line) for line in _whole_lines(text)]
    blocks.sort(key=lambda block: (block.address, block.instructions))
    return tuple(_without_beginnings(blocks))


def _read_block(line: str) -> Block:
    address, *figures = line.split()
    size, instructions, executions, *events = map(int, figures)
    memory = MemoryEvents(*events) if events else None
    return Block(int(address, 16), size, instructions, executions, memory)


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


def memory_events_of(blocks: Iterable[Block]) -> MemoryEvents | None:
    """Add up what loads and stores of blocks waited for; None where no caches were simulated."""
    found = [block.memory for block in blocks if block.memory is not None]
    return MemoryEvents(*map(sum, zip(*found, strict=True))) if found else None


def _whole_lines(text: str) -> list[str]:
    lines = text.splitlines()
    if not lines or lines[-1] != "end":
        raise ValueError("the counts are cut off")
    return lines[:-1]


def instructions_in(blocks: Iterable[Block]) -> int:
    """Return the number of instructions executed."""
    return sum(block.instructions * block.executions for block in blocks)
