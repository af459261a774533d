"""Scores for the tuner that an emulated core can honestly give."""

from __future__ import annotations

from collections.abc import Sequence

from compile.tuning.score import KernelObject
from deploy.emulator.cores import find_core
from deploy.emulator.kernels import count_kernels
from deploy.emulator.qemu import ensure_emulator


class CountedInstructions:
    """Instructions that one call of a kernel executes on an emulated core: counted, exact.

    What the kernel calls (memcpy, memset) counts too.

    Parameters
    ----------
    core : str
        The core to emulate, such as ``cortex-a72``.
    workers : int
        Emulators at once; the counts do not depend on it.
    """

    unit = "instructions"

    def __init__(self, core: str, workers: int) -> None:
        self._core = find_core(core)
        self._workers = workers
        ensure_emulator()
        # The emulator's version is left out: an exact count does not depend on it.
        self.source = f"counted: instructions executed by {core} code, emulated"

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Count each kernel's instructions; in place of a count, why there is none."""
        counts = count_kernels(
            kernels,
            self._core.name,
            timeout_s=60.0,
            workers=self._workers,
            warm=False,
        )
        return [
            count if isinstance(count, str)
            else float(count.instructions + count.helper_instructions)
            for count in counts
        ]  # fmt: skip
