"""One run of the tuner from request to outcome: what `compile/tune.py` calls."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from shuffledeploy.compiler.bundle.folder import Bundle, check_output
from shuffledeploy.compiler.bundle.manifest_entries import ImageStatistics
from shuffledeploy.compiler.chosen_precision import choose_precision
from shuffledeploy.compiler.first_difference import fault_of
from shuffledeploy.compiler.frontend.picture_program import require_fits
from shuffledeploy.compiler.frontend.program import input_specs, load_program
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.lowered_network import Lowered, lower
from shuffledeploy.compiler.network import borrowed_targets, choose_schedules, write_bundle
from shuffledeploy.compiler.shuffles_left import shuffles_left
from shuffledeploy.compiler.tuning.calibration import calibration_inputs
from shuffledeploy.compiler.tuning.kept_schedules import keep_what_wins
from shuffledeploy.compiler.tuning.outcome import Outcome
from shuffledeploy.compiler.tuning.precision_times import times_of_precisions
from shuffledeploy.compiler.tuning.records.log_files import require_appendable
from shuffledeploy.compiler.tuning.records.record_log import log_path, read_log
from shuffledeploy.compiler.tuning.records.related_records import own_records, usable_records
from shuffledeploy.compiler.tuning.request import Request
from shuffledeploy.compiler.tuning.run_search import measure_shortlist, search
from shuffledeploy.compiler.tuning.score import MEASURED_UNIT, Devices
from shuffledeploy.compiler.tuning.search.tasks import find_tasks
from shuffledeploy.compiler.zoo import statistics_of, trace_network
from shuffledeploy.model import registry
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.plain_console import plain_console
from shuffledeploy.model.registry import Normalisation


def tune_network(request: Request, devices: Devices, console: Console | None = None) -> Outcome:
    """Trace, lower, tune, build and check one network.

    Parameters
    ----------
    request : Request
        What is asked for.
    devices : Devices
        What scores and checks.
    console : Console, optional
        Where to say what is being done; standard error if nothing is said.

    Raises
    ------
    UsageError
        What is asked for cannot be done; found out before the network is traced where it can be.
    """
    check_output(request.bundle_path)
    console = console or plain_console(stderr=True)
    say = _Narrator(console)
    device = request.device or devices.default_name(request.target)
    if request.check or request.searches:
        say(f"looking for {device}")
        devices.require(request.target, device, request.score_wanted)
    log = log_path(request.log_folder, request.target.name, request.target.threads)
    if request.searches:
        require_appendable(log)
    if request.weights is not None:
        say(request.weights.sentence)
    say(f"tracing {request.network}")
    exported = _exported(request)
    normalisation, labels = _pictures(request)
    require_fits(exported, normalisation, labels)
    say("running the graph passes")
    calibration = _calibration(request, exported, normalisation)
    if request.accuracy_drop is not None:
        request = _in_chosen_precision(request, exported, calibration, say)
    lowered = lower(exported, request.target, request.dump_ir, calibration, request.keep_float32)
    if lowered.kept:
        say(f"kept in float32: {', '.join(lowered.kept)}")
    if lowered.half is not None and lowered.half.sentence:
        say(lowered.half.sentence)
    tasks = find_tasks(lowered, request.target)
    wanted = [task.key for task in tasks]
    before = usable_records(request.log_folder, request.target, wanted)
    began = time.monotonic()
    find = measure_shortlist if request.measure_shortlist else search
    result = find(request, tasks, devices, device, log, console)
    seconds = time.monotonic() - began
    kept = None
    if result.trials and result.unit == MEASURED_UNIT:
        kept = keep_what_wins(
            request, lowered, tasks, before, devices, device, console=console, say=say
        )
    found = read_log(log)
    own = own_records(request.log_folder, request.target)
    records = usable_records(request.log_folder, request.target, wanted)
    chosen = choose_schedules(lowered, request.target, records)
    bundle = write_bundle(
        request.bundle_path, lowered, chosen, request.target, network=request.network,
        normalisation=statistics_of(normalisation) if normalisation else None, labels=labels,
        options=_options(request), progress=say,
        dump_folder=request.dump_ir, standalone=request.c_name, apple=request.apple,
    )  # fmt: skip
    parity, fault = None, None
    if request.check:
        say(f"checking it on {device}")
        parity = devices.check(bundle, device)
    if parity is not None and not parity.passed:
        say("looking for what makes it differ from PyTorch")
        fault = _fault(lowered, request, bundle)
    return Outcome(
        bundle, device, len(tasks), sum(task.key in own for task in tasks), result, seconds,
        parity, sum(choice.refused for choice in chosen.values()), found.rejected,
        borrowed_targets(chosen), fault, shuffles_left(lowered.module), kept,
    )  # fmt: skip


def _in_chosen_precision(
    request: Request, exported: Any, calibration: list[list[Array]], say: Callable[[str], None]
) -> Request:
    """Ask for the precision that the accuracy which is wanted allows."""
    assert request.accuracy_drop is not None
    estimate = times_of_precisions(request, exported, calibration)
    chosen = choose_precision(
        exported, request.target, calibration, request.accuracy_drop, say, estimate
    )
    say(f"chosen for a drop of at most {request.accuracy_drop:g} %: {chosen.sentence}")
    target = request.target.computing_in(chosen.precision)
    request = dataclasses.replace(request, target=target, keep_float32=chosen.kept)
    check_output(request.bundle_path)
    return request


def _calibration(
    request: Request, exported: Any, normalisation: Normalisation | None
) -> list[list[Array]]:
    if request.calibrate is None or request.read_picture is None:
        return []
    fields = statistics_of(normalisation) if normalisation else None
    return calibration_inputs(
        request.calibrate, input_specs(exported), msgspec.convert(fields, ImageStatistics | None),
        request.read_picture,
    )  # fmt: skip


def _fault(lowered: Lowered, request: Request, bundle: Bundle) -> str | None:
    """Say what makes a network differ from PyTorch on one of its inputs, unscheduled as it is."""
    cases = zip(bundle.reference_inputs(), bundle.reference_outputs(), strict=True)
    faults = (fault_of(lowered.program, request.target, *case) for case in cases)
    return next((str(fault) for fault in faults if fault is not None), None)


def _exported(request: Request) -> Any:
    if request.exported is not None:
        return request.exported
    if request.program is not None:
        if request.resolution or request.weights:
            raise UsageError("--program brings its own shape and weights: leave out "
                             "--resolution and --weights")  # fmt: skip
        return load_program(request.program)
    assert request.model is not None
    return trace_network(request.model, request.resolution, request.weights, request.batch)


def _pictures(request: Request) -> tuple[Normalisation | None, tuple[str, ...]]:
    """Give how pixels are normalised and what classes are called, as far as anybody said."""
    model, weights = request.model, request.weights
    if model is None or request.normalisation is not None:
        normalisation = request.normalisation
    else:
        normalisation = registry.normalisation(model) if weights is None else weights.normalisation
    own = () if model is None else registry.labels(model)
    trained_anew = weights is not None and weights.classes != len(own)
    return normalisation, request.labels or (() if trained_anew else own)


def _options(request: Request) -> dict[str, Any]:
    return {
        "model": request.model,
        "program": request.program and request.program.name,
        "weights": request.weights and request.weights.path.name,
        "weights_named_by": request.weights and request.weights.publisher,
        "resolution": request.resolution and list(request.resolution),
        "batch": request.batch,
        "seed": request.seed,
        "precision": request.target.precision,
        "keep_float32": list(request.keep_float32),
        "accuracy_drop": request.accuracy_drop,
    }


class _Narrator:
    """Says what is being done, with the seconds so far, on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def __call__(self, what: str) -> None:
        elapsed = time.monotonic() - self._began
        self._console.print(Text.assemble((f"{elapsed:6.1f} s", "dim"), f"  {what}"))
