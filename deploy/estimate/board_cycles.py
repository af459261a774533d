"""Cycles and milliseconds on a board: its clock, its caches, its way to memory.

`compile/validate_silicon.py` tells what comes of it on boards whose times were published.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.estimate.memory_cycles import (
    CodePiece,
    CyclesWithMemory,
    together,
    with_memory,
)

LEFT_OUT = "mispredicted branches, instructions fetched from afar, other work on the board"


@dataclass(frozen=True)
class BoardCycles:
    """Cycles of one inference on a board. The kind of these figures is: estimated.

    Attributes
    ----------
    board : str
        The board's name.
    clock_ghz : float
        Its clock.
    cycles : CyclesWithMemory
        By what takes them.
    """

    board: str
    clock_ghz: float
    cycles: CyclesWithMemory

    @property
    def total(self) -> float:
        """All cycles."""
        return self.cycles.total

    @property
    def milliseconds(self) -> float:
        """Time at the board's clock."""
        return self.total / self.clock_ghz / 1e6


def cycles_on(board: Board, pieces: Iterable[CodePiece]) -> BoardCycles:
    """Add what memory costs on a board to the cycles of code.

    Parameters
    ----------
    board : Board
        The board.
    pieces : iterable of CodePiece
        Each function apart, simulated with the board's caches.
    """
    costs = [with_memory(piece, board.caches, board.memory_bytes) for piece in pieces]
    return BoardCycles(board.name, board.clock_ghz, together(costs))
