"""Scores for the tuner that an emulated core can honestly give."""

from __future__ import annotations

from collections.abc import Sequence

from compile.tuning.records import ESTIMATED_UNIT, SHORTLIST
from compile.tuning.score import DetailedScore, KernelObject
from deploy.emulator.caches import CACHES
from deploy.emulator.cores import Guest, guest_of
from deploy.emulator.cycle_model import CycleModel
from deploy.emulator.cycles import CycleEstimate
from deploy.emulator.kernels import KernelCount, count_kernels
from deploy.emulator.qemu import ensure_emulator

TIMEOUT_S = 60.0
# Part by which the two forms of an estimate may differ before it is marked.
DISAGREEMENT = 0.15
# Candidates of a batch whose misses are simulated: as many as a kernel's shortlist holds.
SIMULATED = SHORTLIST


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
    """Cycles that one call of a kernel would take on a core: estimated, see `deploy/emulator`.

    Executions of each region of code are counted on an emulated core; what a region costs there at
    steady state is llvm-mca's word. Both forms of the sum are kept in the details, with the
    instructions, and `disagree` where the forms differ by more than `DISAGREEMENT`. Of the best of
    a batch stand there the simulated misses too (``l1_misses``, ``l2_misses``: lines, in one warmed
    call): they are no part of the score.

    Parameters
    ----------
    guest : Guest
        What to emulate.
    core : str
        LLVM's name of the core whose cycles are wanted.
    workers : int
        Processes at once; the estimate does not depend on it.
    """

    unit = ESTIMATED_UNIT

    def __init__(self, guest: Guest, core: str, workers: int) -> None:
        self._guest = guest
        self._workers = workers
        self._caches = CACHES.get(core)
        ensure_emulator(guest.architecture)
        self._model = CycleModel(guest.architecture, core, workers)
        self.source = self._model.source

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Estimate each kernel's cycles; in place of an estimate, why there is none."""
        counts = _count(kernels, self._guest, self._workers)
        executed = [count for count in counts if not isinstance(count, str)]
        estimates = iter(self._model.estimate([(c.blocks, c.image) for c in executed]))
        results: list[float | str] = []
        for count in counts:
            estimate = count if isinstance(count, str) else next(estimates)
            if isinstance(count, str) or isinstance(estimate, str):
                results.append(str(estimate))
            else:
                results.append(_detailed(estimate, count))
        return self._with_misses(kernels, results) if self._caches is not None else results

    def _with_misses(
        self, kernels: Sequence[KernelObject], results: Sequence[float | str]
    ) -> list[float | str]:
        """Add the simulated misses of the best, which alone may enter a log."""
        found = list(results)
        scored = {index: score for index, score in enumerate(found) if isinstance(score, float)}
        best = sorted(scored, key=lambda index: scored[index])[:SIMULATED]
        counts = count_kernels(
            [kernels[index] for index in best], self._guest, timeout_s=TIMEOUT_S,
            workers=self._workers, caches=self._caches,
        )  # fmt: skip
        for index, count in zip(best, counts, strict=True):
            score = found[index]
            # Without them the score is as good: they are no part of it.
            if isinstance(score, DetailedScore) and not isinstance(count, str) and count.misses:
                misses = dict(zip(("l1_misses", "l2_misses"), count.misses, strict=True))
                found[index] = DetailedScore(score, {**score.details, **misses})
        return found


def _count(kernels: Sequence[KernelObject], guest: Guest, workers: int) -> list[KernelCount | str]:
    return count_kernels(kernels, guest, timeout_s=TIMEOUT_S, workers=workers, warm=False)


def _detailed(estimate: CycleEstimate, count: KernelCount) -> DetailedScore:
    forms = (estimate.iterations, estimate.throughput)
    details = {
        "iterations": round(estimate.iterations, 1),
        "throughput": round(estimate.throughput, 1),
        "instructions": count.total,
    }
    if max(forms) > (1 + DISAGREEMENT) * min(forms):
        details["disagree"] = 1
    if estimate.outlying:
        details["outlying"] = len(estimate.outlying)
    return DetailedScore(round(estimate.cycles, 1), details)
