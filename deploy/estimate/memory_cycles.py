"""What memory adds to the cycles of code: one place for kernels, networks and other engines.

A piece of code, such as a kernel, takes as long as it is busy, or as long as its lines need to come
from memory, whichever is longer, for they come while it works; and what it changed has to be
written back. Busy it is with its instructions, and with what they wait for:

- a line that the first level lacks takes as many cycles as its bytes need at the width between the
  levels, if it follows others: a prefetcher sees it coming, as in the execution-cache-memory model
  (Treibig and Hager, "Introducing a performance model for bandwidth-limited loop kernels", 2009);
- another line takes `Caches.start_cycles`: its latency, until the prefetcher runs ahead. Lines that
  are wanted within one window of instructions come together: beyond their width such lines take no
  longer than the code itself;
- a line that a third level catches comes at the width behind the second;
- on cores that have many instructions under way neither of these takes time (`hides_following`);
- pages are looked up, and loads wait for stores (`deploy.estimate.caches`).

Lines from memory and lines written back take their bytes at the board's own bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from shuffledeploy.compiler.cores import LINE
from shuffledeploy.deploy.estimate.caches import BLOCKED_LOAD, Caches
from shuffledeploy.deploy.estimate.executed_blocks import MemoryEvents


class CodePiece(NamedTuple):
    """Code that was executed, such as a kernel.

    Attributes
    ----------
    cycles : float
        Of its instructions, caches hit and branches predicted. Estimated.
    events : MemoryEvents
        What its loads and stores waited for. Simulated.
    """

    cycles: float
    events: MemoryEvents


class CyclesWithMemory(NamedTuple):
    """Cycles by what takes them. The kind of these figures is: estimated.

    Attributes
    ----------
    code : float
        Instructions, caches hit and branches predicted.
    first_level, third_level : float
        Lines from the second level, and from a third.
    stalls : float
        Pages, and loads that wait for stores.
    memory : float
        Lines from memory beyond the time that code is busy, and lines written back.
    """

    code: float
    first_level: float
    third_level: float
    stalls: float
    memory: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)


def with_memory(piece: CodePiece, caches: Caches, memory_bytes: float) -> CyclesWithMemory:
    """Add what memory costs to the cycles of one piece of code.

    Parameters
    ----------
    piece : CodePiece
        Simulated with these caches.
    caches : Caches
        The core's, as they are on its board.
    memory_bytes : float
        Bytes a cycle between memory and the last level.
    """
    code, events = piece
    from_memory = events.l3_misses if caches.third else events.l2_misses
    width = 0.0 if caches.hides_following else LINE / caches.first_bytes
    starts = max(0.0, caches.start_cycles - width) * events.starting_lines
    first_level = width * events.l1_misses + min(starts, code)
    third_level = 0.0
    if not caches.hides_following:
        third_level = LINE * (events.l2_misses - from_memory) / caches.second_bytes
    stalls = caches.translation.cycles * events.page_misses + BLOCKED_LOAD * events.blocked_loads
    busy = code + first_level + third_level + stalls
    late = max(0.0, LINE * from_memory / memory_bytes - busy)
    memory = late + LINE * events.dirty_lines / memory_bytes
    return CyclesWithMemory(code, first_level, third_level, stalls, memory)


def together(pieces: Iterable[CyclesWithMemory]) -> CyclesWithMemory:
    """Add up pieces that run one after the other."""
    return CyclesWithMemory(*map(sum, zip(CyclesWithMemory(0, 0, 0, 0, 0), *pieces, strict=True)))
