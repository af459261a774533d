"""The memory for which a core's kernels are tuned: that of the board by which it is known."""

from __future__ import annotations

from typing import NamedTuple

from shuffledeploy.deploy.estimate.boards import BOARDS
from shuffledeploy.deploy.estimate.caches import ARM_CACHES, Caches
from shuffledeploy.deploy.estimate.x86_caches import X86_CACHES


class KernelMemory(NamedTuple):
    """What kernels are scored with.

    Attributes
    ----------
    caches : Caches
        Of the core.
    memory_bytes : float
        Bytes a cycle between memory and the last level.
    """

    caches: Caches
    memory_bytes: float


def kernel_memory(core: str) -> KernelMemory | None:
    """Give a core's caches and memory; None where its caches are not known.

    The first board of `boards.BOARDS` that has the core gives both; without one, memory is taken to
    be as fast as what lies behind the second level.
    """
    board = next((board for board in BOARDS.values() if board.core == core), None)
    if board is not None:
        return KernelMemory(board.caches, board.memory_bytes)
    caches = ARM_CACHES.get(core) or X86_CACHES.get(core)
    return KernelMemory(caches, caches.second_bytes) if caches else None
