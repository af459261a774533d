"""Scores for the tuner that an emulated core can honestly give."""

from __future__ import annotations

from collections.abc import Sequence

from compile.tuning.records import ESTIMATED_UNIT
from compile.tuning.score import DetailedScore, KernelObject
from deploy.emulator.block_costs import BlockCosts
from deploy.emulator.cores import Guest, guest_of
from deploy.emulator.cycles import ESTIMATOR_VERSION, CycleEstimate, regions_of, sum_cycles
from deploy.emulator.kernels import KernelCount, count_kernels
from deploy.emulator.llvm_tools import GOOD_RELEASE, ensure_llvm_tools
from deploy.emulator.qemu import ensure_emulator
from deploy.emulator.scheduling_models import model_of

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
    """Cycles that one call of a kernel would take on a core: estimated, see `deploy/emulator`.

    Executions of each region of code are counted on an emulated core; what a region costs there at
    steady state is llvm-mca's word. Both forms of the sum are kept in the details, with the
    instructions, and `disagree` where the forms differ by more than `DISAGREEMENT`.

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
        ensure_emulator(guest.architecture)
        tools = ensure_llvm_tools()
        self._costs = BlockCosts(tools, guest.architecture, core, workers)
        # Older releases of LLVM shared some models that newer ones have.
        model = model_of(core) if tools.release >= GOOD_RELEASE else None
        self.source = (
            f"estimated: cycles of {core} code by estimator {ESTIMATOR_VERSION}, "
            f"{model + ', ' if model else ''}llvm-mca {tools.version}"
        )

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Estimate each kernel's cycles; in place of an estimate, why there is none."""
        counts = _count(kernels, self._guest, self._workers)
        regions = [
            () if isinstance(count, str) else regions_of(count.blocks, count.image)
            for count in counts
        ]
        costs = self._costs.of({region.code for own in regions for region in own})
        results: list[float | str] = []
        for count, own in zip(counts, regions, strict=True):
            estimate = count if isinstance(count, str) else sum_cycles(own, costs)
            if isinstance(count, str) or isinstance(estimate, str):
                results.append(str(estimate))
            else:
                results.append(_detailed(estimate, count))
        return results


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
