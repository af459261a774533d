"""Cycles and milliseconds on a board: what code costs, and what memory adds.

Three terms are added up. None of their constants was fitted to a published time:

- code: cycles of what was executed, caches hit and branches predicted (`cycles.py`);
- first level: each line that it lacks takes as many cycles as its bytes need at the width between
  the levels (`caches.py` has the widths and their sources; 4 cycles, 2 on the Cortex-A76);
- memory: each line that the last level lacks takes as long as its bytes need at the board's own
  bandwidth (`boards.py`). Where a third level catches a line, that comes at the width behind the
  second.

They are added although a core that executes out of order hides part of a wait: this makes the
estimate too long. Latencies of lines and lines written back are left out: this makes it too short.
`compile/validate_silicon.py` tells what comes of it on boards whose times were published.
"""

from __future__ import annotations

from dataclasses import dataclass

from shuffledeploy.compiler.cores import LINE
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.estimate.executed_blocks import MemoryEvents

LEFT_OUT = (
    "latencies of lines, lines that are written back, lookups of pages, mispredicted branches,"
    " other work on the board"
)


@dataclass(frozen=True)
class BoardCycles:
    """Cycles of one inference on a board. The kind of these figures is: estimated.

    Attributes
    ----------
    board : str
        The board's name.
    clock_ghz : float
        Its clock.
    code : float
        Of what was executed.
    first_level, third_level, memory : float
        For lines that come from the second level, from a third, from memory.
    """

    board: str
    clock_ghz: float
    code: float
    first_level: float
    third_level: float
    memory: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.code + self.first_level + self.third_level + self.memory

    @property
    def milliseconds(self) -> float:
        """Time at the board's clock."""
        return self.total / self.clock_ghz / 1e6


def cycles_on(board: Board, code: float, events: MemoryEvents) -> BoardCycles:
    """Add what memory costs on a board to the cycles of code.

    Parameters
    ----------
    board : Board
        The board.
    code : float
        Cycles of its core for what was executed.
    events : MemoryEvents
        Simulated with the board's caches.
    """
    caches = board.caches
    from_memory = events.l2_misses if events.l3_misses is None else events.l3_misses
    return BoardCycles(
        board.name,
        board.clock_ghz,
        code,
        LINE * events.l1_misses / caches.first_bytes,
        LINE * (events.l2_misses - from_memory) / caches.second_bytes,
        LINE * from_memory / board.memory_bytes,
    )
