"""Kernels for ARM that double their input, for boards to score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tvm import te

from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tuning.score import KernelObject
from shuffledeploy.compiler.tuning.search.candidates import build_calls, build_candidate

ARM = find_target("arm")


def doubling(size: int) -> Any:
    """Give a function that doubles so many numbers."""
    left = te.placeholder((size,), name="left")
    return te.create_prim_func([left, te.compute((size,), lambda i: left[i] * 2, name="twice")])


def doubling_kernels(folder: Path) -> list[KernelObject]:
    """Build a small and a larger kernel by turns, ten in all."""
    calls, built = build_calls([doubling(16), doubling(32)] * 5, ARM, folder)
    for call in calls:
        build_candidate(*call)
    return built
