"""What the counting plugin writes: how often each translation block ran."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Unused system calls by which the guest starts and ends a count (also in counter.c and runner.c).
MARK_BEGIN = 7001
MARK_END = 7002


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
    lines = text.splitlines()
    if not lines or lines[-1] != "end":
        raise ValueError("the counts are cut off")
    fields = (line.split() for line in lines[:-1])
    blocks = [Block(int(address, 16), *map(int, figures)) for address, *figures in fields]
    return tuple(sorted(blocks, key=lambda block: (block.address, block.instructions)))


def instructions_in(blocks: Iterable[Block]) -> int:
    """Return the number of instructions executed."""
    return sum(block.instructions * block.executions for block in blocks)
