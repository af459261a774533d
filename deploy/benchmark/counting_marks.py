"""Counting from Python on the emulated board, where there is little to import."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from shuffledeploy.deploy.estimate.executed_blocks import MARK_BEGIN, MARK_END, MARK_SIMULATE

_EVERYTHING = (0, 2**63 - 1)

_libc = ctypes.CDLL(None, use_errno=True)


def count_begin() -> None:
    """Start counting in the whole process."""
    low, high = _EVERYTHING
    _libc.syscall(ctypes.c_long(MARK_BEGIN), ctypes.c_long(low), ctypes.c_long(high))


def simulate_caches(shapes: Sequence[int]) -> None:
    """Have caches of these shapes simulated from now on, see `Caches.shapes`."""
    _libc.syscall(ctypes.c_long(MARK_SIMULATE), *map(ctypes.c_long, shapes))


def count_end(prefix: str) -> str:
    """Stop counting; return the report that the plugin wrote with this prefix of its file."""
    _libc.syscall(ctypes.c_long(MARK_END))
    # Under user-mode emulation the guest's process id is the host's.
    report = Path(f"{prefix}.{os.getpid()}")
    text = report.read_text()
    report.unlink()
    return text
