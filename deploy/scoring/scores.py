"""Scores for the tuner that an emulated core can honestly give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shuffledeploy.compiler.tuning.records.record import ESTIMATED_UNIT
from shuffledeploy.compiler.tuning.score import DetailedScore, KernelObject
from shuffledeploy.deploy.board.guests import Guest, guest_of
from shuffledeploy.deploy.board.qemu import ensure_emulator
from shuffledeploy.deploy.estimate.caches import Caches
from shuffledeploy.deploy.estimate.cycle_model import CycleModel
from shuffledeploy.deploy.estimate.cycles import CycleEstimate
from shuffledeploy.deploy.estimate.memory_cycles import CodePiece, with_memory
from shuffledeploy.deploy.estimate.reference_boards import KernelMemory, kernel_memory
from shuffledeploy.deploy.scoring.count_kernels import KernelCount, count_kernels

TIMEOUT_S = 60.0
# Part by which the two forms of an estimate may differ before it is marked.
DISAGREEMENT = 0.15


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
        self._guest = guest_of(core)
        self._workers = workers
        ensure_emulator()
        # The emulator's version is left out: an exact count does not depend on it.
        self.source = f"counted: instructions executed by {core} code, emulated"

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Count each kernel's instructions; in place of a count, why there is none."""
        counts = _count(kernels, self._guest, self._workers)
        return [count if isinstance(count, str) else float(count.total) for count in counts]


class EstimatedCycles:
    """Cycles that one call of a kernel would take on a core: estimated, see `deploy/estimate`.

    Executions of each region of code are counted on an emulated core; what a region costs there at
    steady state is llvm-mca's word. Both forms of the sum are kept in the details, with the
    instructions, and `disagree` where the forms differ by more than `DISAGREEMENT`. To their mean
    comes what memory adds, as `deploy.estimate.memory_cycles` has it, on the board by which the
    core is known (`deploy.estimate.reference_boards`), with its parts and the simulated events.

    Parameters
    ----------
    guest : Guest
        What to emulate.
    core : str
        LLVM's name of the core whose cycles are wanted.
    workers : int
        Processes at once; the estimate does not depend on it.
    memory : KernelMemory, optional
        The core's caches and memory where they are not those by which it is known.
    remembered_in : Path, optional
        See `CycleModel`.
    repeated : bool
        Estimate the second of two calls, as one that is timed again and again: caches then hold
        what a call leaves. Else the tensors have just been written, once, and no kernel ran.
    """

    unit = ESTIMATED_UNIT

    def __init__(
        self, guest: Guest, core: str, workers: int, memory: KernelMemory | None = None,
        remembered_in: Path | None = None, repeated: bool = False,
    ) -> None:  # fmt: skip
        self._guest = guest
        self._repeated = repeated
        self._workers = workers
        self._memory = memory or kernel_memory(core)
        ensure_emulator(guest.architecture)
        self._model = CycleModel(guest.architecture, core, workers, remembered_in)
        self.source = self._model.source

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Estimate each kernel's cycles; in place of an estimate, why there is none."""
        caches = self._memory.caches if self._memory else None
        counts = _count(kernels, self._guest, self._workers, caches, self._repeated)
        executed = [count for count in counts if not isinstance(count, str)]
        estimates = iter(self._model.estimate([(c.blocks, c.image) for c in executed]))
        results: list[float | str] = []
        for count in counts:
            estimate = count if isinstance(count, str) else next(estimates)
            if isinstance(count, str) or isinstance(estimate, str):
                results.append(str(estimate))
            else:
                results.append(_detailed(estimate, count, self._memory))
        return results


def _count(
    kernels: Sequence[KernelObject], guest: Guest, workers: int, caches: Caches | None = None,
    repeated: bool = False,
) -> list[KernelCount | str]:  # fmt: skip
    # Without a call before: the runner has just written all tensors, what fits a cache is in it.
    return count_kernels(
        kernels, guest, timeout_s=TIMEOUT_S, workers=workers, warm=repeated, caches=caches
    )


def _detailed(
    estimate: CycleEstimate, count: KernelCount, memory: KernelMemory | None
) -> DetailedScore:
    forms = (estimate.iterations, estimate.throughput)
    cycles = estimate.cycles
    details = {
        "iterations": round(estimate.iterations, 1),
        "throughput": round(estimate.throughput, 1),
        "instructions": count.total,
    }
    if memory is not None and count.memory is not None:
        piece = CodePiece(cycles, count.memory)
        parts = with_memory(piece, memory.caches, memory.memory_bytes)
        details |= count.memory._asdict()
        details |= {name: round(part, 1) for name, part in parts._asdict().items()}
        cycles = parts.total
    if max(forms) > (1 + DISAGREEMENT) * min(forms):
        details["disagree"] = 1
    if estimate.outlying:
        details["outlying"] = len(estimate.outlying)
    return DetailedScore(round(cycles, 1), details)
