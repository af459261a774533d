"""One run of the bench runner on a device: what came of it, as the other ways of running say it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.bundle.tolerances import error_unit
from shuffledeploy.compiler.cores import core_of_part
from shuffledeploy.deploy.devices.device_names import DeviceName, require_core
from shuffledeploy.deploy.devices.processor_state import summarize
from shuffledeploy.deploy.runner.bench_runner import build_runner, write_reference
from shuffledeploy.deploy.runner.runner_answer import KernelTime, RunnerAnswer, read_answer
from shuffledeploy.deploy.runner.runner_places import run_program
from shuffledeploy.deploy.runtime.latency import THREADS, Latency
from shuffledeploy.deploy.runtime.parity import NOT_TOLD, Parity, judged, parity_of
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder


@dataclass(frozen=True)
class RunnerWishes:
    """What the runner is asked for.

    Attributes
    ----------
    runs : int
        Inferences to time.
    core : str or None
        ``big``, ``little``, ``any`` or a number; ``big`` where nothing is said.
    cold : bool
        Whether caches are emptied before each.
    kernels : bool
        Whether each kernel is timed, too.
    """

    runs: int
    core: str | None = None
    cold: bool = False
    kernels: bool = False

    def options(self) -> list[str]:
        """Return the runner's options."""
        words = ["--runs", str(self.runs), *(("--core", self.core) if self.core else ())]
        return words + ["--cold"] * self.cold + ["--kernels"] * self.kernels


@dataclass(frozen=True)
class RunnerResult:
    """What came of a run.

    Attributes
    ----------
    is_emulated : bool
        Whether the device says so, or is known to be.
    parity : Parity
        With PyTorch.
    latency : Latency or None
        None where it is emulated.
    kernels : tuple of KernelTime
        In the order of their calls, where they were asked for.
    core : str or None
        The core, as LLVM names it; None where the device does not tell, or it is none of ours.
    name : str or None
        What the device calls itself.
    """

    is_emulated: bool
    parity: Parity
    latency: Latency | None
    kernels: tuple[KernelTime, ...]
    core: str | None
    name: str | None


def program_name_of(bundle: Bundle) -> str:
    """Name the program, such as ``shufflenet_g3_x0_5-bench``."""
    return f"{bundle.standalone.name}-bench"


def run_runner(bundle: Bundle, place: DeviceName, wishes: RunnerWishes) -> RunnerResult:
    """Build the runner of a bundle, run it on a device, and judge what it says.

    Raises
    ------
    UsageError
        If the bundle has no standalone network, or the device cannot run it.
    Failure
        If the device fails.
    """
    require_core(wishes.core, place)
    with scratch_folder("shuffledeploy-run-") as folder:
        program, reference = folder / program_name_of(bundle), folder / "reference.bin"
        build_runner(bundle, program)
        write_reference(bundle, reference)
        text = run_program(place, bundle.manifest, program, reference, wishes.options())
    return judge(bundle, read_answer(text, place.text), place)


def judge(bundle: Bundle, answer: RunnerAnswer, place: DeviceName) -> RunnerResult:
    """Hold what the runner says against the bundle.

    Raises
    ------
    Failure
        If it did not compare or time what it was to.
    """
    manifest, allowed = bundle.manifest, bundle.manifest.tolerance
    precision = manifest.precision
    wanted = [len(manifest.outputs)] * manifest.cases
    compared = [len(case.errors) for case in answer.cases]
    if compared != wanted:
        raise Failure(f"{place.text}: the runner compared {len(compared)} of {len(wanted)} inputs")
    expected = reversed(bundle.reference_outputs())
    cases = [
        judged(
            case.numbers, [error_unit(output, precision) for output in outputs], allowed, precision,
            top1=case.top1, top5=case.top5,
        )
        for case, outputs in zip(answer.cases, expected, strict=True)
    ]  # fmt: skip
    parity = parity_of(cases, allowed, precision)
    if not parity.passed:
        parity = dataclasses.replace(parity, first_wrong_kernel=NOT_TOLD)
    # A device that is known to be emulated may not say so.
    is_emulated = answer.emulated or place.kind == "emulated"
    core = place.core or core_of_part(answer.part)
    if is_emulated:
        return RunnerResult(is_emulated, parity, None, (), core, answer.name)
    if answer.latency is None:
        raise Failure(f"{place.text}: the runner tells no time, and not that it is emulated")
    told = answer.latency
    readings = summarize([state for state in (answer.before, answer.after) if state])
    latency = Latency(
        told.median_ms, told.p10_ms, told.p90_ms, told.runs, THREADS,
        core or f"{manifest.architecture} core", answer.name, readings,
    )  # fmt: skip
    return RunnerResult(is_emulated, parity, latency, answer.kernels, core, answer.name)
