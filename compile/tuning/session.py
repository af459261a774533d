"""One run of the tuner from request to outcome: what `compile/tune.py` calls."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from compile.bundle import Bundle, check_output
from compile.network import choose_schedules, lower, write_bundle
from compile.program import load_program
from compile.targets import CompileTarget
from compile.tuning.candidates import Workers
from compile.tuning.records import append, compact, log_path, read_log
from compile.tuning.score import Devices, Verdict
from compile.tuning.tuner import DEFAULT_TRIALS_A_TASK, Task, find_tasks, tune
from compile.tuning.tuner import Progress as TaskProgress
from compile.zoo import normalisation_of, trace_network
from model.errors import UsageError

BUNDLE_FOLDER = Path("build") / "bundles"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a user asks for; see `compile/tune.py --help`."""

    target: CompileTarget
    model: str | None
    program: Path | None
    resolution: tuple[int, int] | None
    weights: Path | None
    trials: int | None
    seed: int
    device: str | None
    output: Path | None
    log_folder: Path
    dump_ir: Path | None
    check: bool

    @property
    def network(self) -> str:
        """Name of the network in reports and paths."""
        if self.model is None:
            return self.program.stem if self.program is not None else "network"
        size = f"-{self.resolution[0]}x{self.resolution[1]}" if self.resolution else ""
        return f"{self.model}{size}"

    @property
    def bundle_path(self) -> Path:
        """Where the bundle goes."""
        return self.output or BUNDLE_FOLDER / f"{self.network}-{self.target.name}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes
    ----------
    bundle : Bundle
        What was built.
    device : str
        Where it was scored and checked.
    tasks, tasks_with_record : int
        Kernels worth tuning, and those whose record was applied.
    trials : int
        Candidates tried in this run.
    seconds : float
        Time the search took.
    parity : Verdict or None
        ``None`` where no check was asked for.
    refused : int
        Records that did not fit their kernel.
    rejected : tuple of str
        Lines of the log that could not be used.
    failed : tuple of str
        Kernels of which no candidate worked, each with the last reason.
    """

    bundle: Bundle
    device: str
    tasks: int
    tasks_with_record: int
    trials: int
    seconds: float
    parity: Verdict | None
    refused: int
    rejected: tuple[str, ...]
    failed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields documented in the README."""
        manifest = self.bundle.manifest
        return {
            "network": manifest.network,
            "target": manifest.target,
            "bundle": str(self.bundle.path),
            "kernels": manifest.kernel_calls,
            "shuffle_kernels": manifest.shuffle_kernels,
            "tasks": self.tasks,
            "tasks_with_record": self.tasks_with_record,
            "trials": self.trials,
            "trials_per_second": self.trials / self.seconds if self.trials else None,
            "score_source": manifest.score_source,
            "records_refused": self.refused,
            "log_lines_rejected": len(self.rejected),
            "device": self.device,
            "parity": None if self.parity is None else self.parity.to_json(),
        }

    def sentences(self) -> Iterator[str]:
        """Say in words what came out."""
        manifest = self.bundle.manifest
        yield (
            f"{manifest.kernel_calls} kernel calls, {manifest.shuffle_kernels} of them shuffles; "
            f"{self.tasks_with_record} of {self.tasks} tasks with a tuning record"
        )
        if self.trials:
            rate = self.trials / self.seconds
            yield f"tried {self.trials} candidates in {self.seconds:.0f} s ({rate:.1f} a second)"
        else:
            yield "nothing new to learn: no candidate was tried"
        for sentence in self.failed:
            yield f"no candidate worked of {sentence}"
        for sentence in self.rejected[:3]:
            yield f"log line not used: {sentence}"
        if len(self.rejected) > 3:
            yield f"... and {len(self.rejected) - 3} more log lines not used"
        if self.refused:
            yield f"{self.refused} records did not fit their kernels and were not used"
        if self.parity is not None:
            yield f"parity with PyTorch on {self.device} {self.parity.verdict}"
            if not self.parity.passed:
                yield f"first wrong kernel: {self.parity.first_wrong_kernel}"
        yield f"bundle: {self.bundle.path}"


def tune_network(request: Request, devices: Devices) -> Outcome:
    """Trace, lower, tune, build and check one network."""
    check_output(request.bundle_path)
    console = Console(stderr=True)
    device = request.device or devices.default_name(request.target)
    say = _Narrator(console)
    say(f"tracing {request.network}")
    exported = _exported(request)
    say("running the graph passes")
    lowered = lower(exported, request.target, request.dump_ir)
    tasks = find_tasks(lowered, request.target)
    log = log_path(request.log_folder, request.target.name)
    began = time.monotonic()
    trials, failed = _search(request, tasks, devices, device, log, console)
    seconds = time.monotonic() - began
    found = read_log(log)
    chosen = choose_schedules(lowered, request.target, found.best)
    bundle = write_bundle(
        request.bundle_path, lowered, chosen, request.target, network=request.network,
        normalisation=None if request.model is None else normalisation_of(request.model),
        options=_options(request), progress=say,
    )  # fmt: skip
    parity = None
    if request.check:
        say(f"checking it on {device}")
        parity = devices.check(bundle, device)
    return Outcome(
        bundle, device, len(tasks), sum(task.key in found.best for task in tasks), trials, seconds,
        parity, sum(choice.refused for choice in chosen.values()), found.rejected, failed,
    )  # fmt: skip


def _exported(request: Request) -> Any:
    if request.program is not None:
        if request.resolution or request.weights:
            raise UsageError("--program brings its own shape and weights: leave out "
                             "--resolution and --weights")  # fmt: skip
        return load_program(request.program)
    assert request.model is not None
    return trace_network(request.model, request.resolution, request.weights)


def _options(request: Request) -> dict[str, Any]:
    return {
        "model": request.model,
        "program": request.program and request.program.name,
        "weights": request.weights and request.weights.name,
        "resolution": request.resolution and list(request.resolution),
        "seed": request.seed,
    }


def _search(
    request: Request,
    tasks: Sequence[Task],
    devices: Devices,
    device: str,
    log: Path,
    console: Console,
) -> tuple[int, tuple[str, ...]]:
    known = read_log(log).best
    chosen = list(tasks)
    if request.trials is None:
        # With nothing said, kernels that have a record are left as they are.
        chosen = [task for task in tasks if task.key not in known]
        trials = DEFAULT_TRIALS_A_TASK * len(chosen)
    else:
        # What earlier runs tried counts, so that the same command again learns nothing twice.
        tried = sum(known[task.key].trials for task in tasks if task.key in known)
        trials = request.trials - tried
    if trials <= 0 or not chosen:
        return 0, ()
    append(log, [])  # that it cannot be written shows now, not after the first batch
    with (
        devices.score(request.target, device) as score,
        Workers() as workers,
        _bar(console) as bar,
    ):
        records = read_log(log, score.source).best
        row = bar.add_task("tuning", total=trials, what="", gain="")

        def report(states: Sequence[TaskProgress], spent: int) -> None:
            last = max(states, key=lambda state: state.updated)
            bar.update(row, completed=spent, what=last.task.name, gain=_gain(states))

        states = tune(
            chosen, records, score, request.target, log, trials=trials, seed=request.seed,
            workers=workers, report=report,
        )  # fmt: skip
    compact(log)
    failed = tuple(
        f"{state.task.name}: {state.last_failure}"
        for state in states
        if 0 < state.trials == state.failures
    )
    return sum(state.trials for state in states), failed


def _gain(states: Sequence[TaskProgress]) -> str:
    scored = [state for state in states if state.start is not None and state.best is not None]
    before = sum(state.task.calls * (state.start or 0) for state in scored)
    after = sum(state.task.calls * state.best.score for state in scored if state.best is not None)
    return f"{before / after:.2f}x" if after else ""


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description} {task.fields[what]:<32.32}"), BarColumn(14),
        TextColumn("{task.completed}/{task.total}"), TextColumn("{task.fields[gain]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console,
    )  # fmt: skip


class _Narrator:
    """Says what is being done, with the seconds so far, on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def __call__(self, what: str) -> None:
        elapsed = time.monotonic() - self._began
        self._console.print(f"[dim]{elapsed:6.1f} s[/dim]  {what}", highlight=False)
