"""Networks of the zoo, compiled with the records that are at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.lowered_network import lower, record_keys
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.records.related_records import usable_records
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.folders import records_folder
from shuffledeploy.model.foreign.checkpoint import Checkpoint
from shuffledeploy.model.registry import (
    Normalisation,
    build,
    input_shape,
    labels,
    normalisation,
)

# Beyond it the images alone are hundreds of megabytes.
LARGEST_BATCH = 256


def trace_network(
    name: str,
    resolution: tuple[int, int] | None = None,
    weights: Checkpoint | None = None,
    batch: int = 1,
) -> ExportedProgram:
    """Build a network of the zoo, or take that of a checkpoint, and trace it for so many images.

    Raises
    ------
    UsageError
        If the name, the resolution or the batch do not fit.
    """
    if not 1 <= batch <= LARGEST_BATCH:
        raise UsageError(f"a batch has 1 to {LARGEST_BATCH} images, not {batch}")
    _, *shape = input_shape(name, resolution)
    return trace(build(name) if weights is None else weights.module, (batch, *shape))


def statistics_of(found: Normalisation) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel, for a manifest."""
    return {k: list(v) for k, v in dataclasses.asdict(found).items()}


def compile_network(
    name: str,
    target: CompileTarget,
    output: Path,
    *,
    resolution: tuple[int, int] | None = None,
    log_folder: Path | None = None,
    standalone: bool = False,
    calibration: Sequence[list[Array]] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Compile a network of the zoo with the committed records; nothing is tuned.

    Parameters
    ----------
    name : str
        Name in `model.registry`.
    target : CompileTarget
        What to compile for.
    output : Path
        Folder of the bundle.
    resolution : tuple of int, optional
        Height and width; the network's own where absent.
    log_folder : Path, optional
        Where tuning records are kept, a folder a target; those of the project if nothing is said.
    standalone : bool
        Also build the network without a runtime.
    calibration : sequence
        Inputs like those to come, of a network in int8.
    progress : Callable
        Told in a few words what is being done.
    """
    progress(f"tracing {name}")
    return compile_exported(
        trace_network(name, resolution), target, output, network=name,
        options={"model": name, "resolution": resolution and list(resolution)},
        statistics=statistics_of(normalisation(name)), names=labels(name), log_folder=log_folder,
        standalone=name if standalone else None, calibration=calibration, progress=progress,
    )  # fmt: skip


def compile_exported(  # noqa: PLR0913 - all but three by name
    exported: ExportedProgram,
    target: CompileTarget,
    output: Path,
    *,
    network: str,
    options: dict[str, Any],
    statistics: dict[str, list[float]] | None = None,
    names: tuple[str, ...] = (),
    log_folder: Path | None = None,
    standalone: str | None = None,
    calibration: Sequence[list[Array]] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Compile a program with the records at hand; nothing is tuned.

    Parameters
    ----------
    exported : ExportedProgram
        The program.
    target, output, log_folder, calibration, progress
        As :func:`compile_network` takes them.
    network : str
        Name for people.
    options : dict
        What was asked for, for the manifest.
    statistics : dict, optional
        ``mean`` and ``std`` for each channel of an image in 0 to 1.
    names : tuple of str
        Of the classes.
    standalone : str, optional
        Also build the network without a runtime: what its names in C are made of.
    """
    progress("running the graph passes")
    lowered = lower(exported, target, calibration=calibration)
    logs = log_folder or records_folder()
    records = usable_records(logs, target, record_keys(lowered, target))
    return write_bundle(
        output, lowered, choose_schedules(lowered, target, records), target, network=network,
        normalisation=statistics, labels=names, options=options, progress=progress,
        standalone=standalone,
    )  # fmt: skip
