"""A whole network: from an exported program to a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tvm

from shuffledeploy.compiler.bundle import folder as bundles
from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.bundle.manifest_entries import ImageStatistics, Layer, Precision
from shuffledeploy.compiler.bundle.tolerances import TOLERANCES
from shuffledeploy.compiler.first_difference import agree, fault_of
from shuffledeploy.compiler.int8_ranges import held_in_int8
from shuffledeploy.compiler.ir.inspection import is_shuffle
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.layer_values import layers_of
from shuffledeploy.compiler.library import compile_program, machine_program
from shuffledeploy.compiler.library_facts import (
    joined_in_place,
    kernel_entries,
    strip_calls,
    symbols_of,
    versions,
)
from shuffledeploy.compiler.lowered_network import Lowered
from shuffledeploy.compiler.passes.graph.eliminate_channel_shuffle import count_shuffles
from shuffledeploy.compiler.passes.graph.fold_batch_norm import fold_batch_norm
from shuffledeploy.compiler.pipeline import Dump, Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.proof_arrays import (
    SEEDS,
    ProofArrays,
    proof_arrays,
    samples_of,
    unscheduled_program,
    written_answers,
)
from shuffledeploy.compiler.standalone.package import write_standalone
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.recorded_schedules import apply_record, kernel_key
from shuffledeploy.model.progress import saying_what_is_left


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A kernel's schedule and where it came from."""

    function: Any
    record: Record | None
    refused: bool

    @property
    def own_record(self) -> Record | None:
        """The record, where its score is the target's own."""
        return self.record if self.record is not None and not self.record.lender else None


def choose_schedules(
    lowered: Lowered, target: CompileTarget, records: Mapping[str, Record]
) -> dict[str, Chosen]:
    """Give each kernel the schedule of its record, or its form's default."""
    chosen = {}
    for name, function in lowered.kernels.items():
        record = records.get(kernel_key(function))
        applied = apply_record(function, record) if record is not None else None
        chosen[name] = Chosen(
            scheduled(function, target.core) if applied is None else applied,
            record if applied is not None else None,
            record is not None and applied is None,
        )
    return chosen


def borrowed_targets(chosen: Mapping[str, Chosen]) -> tuple[str, ...]:
    """Name the targets whose records were applied in the place of missing ones."""
    records = (choice.record for choice in chosen.values())
    return tuple(sorted({record.lender for record in records if record and record.lender}))


def write_bundle(  # noqa: PLR0913 - all but four by name
    output: Path,
    lowered: Lowered,
    chosen: Mapping[str, Chosen],
    target: CompileTarget,
    *,
    network: str,
    normalisation: dict[str, list[float]] | None,
    options: dict[str, Any],
    progress: Callable[[str], None] = lambda _: None,
    dump_folder: Path | None = None,
    standalone: str | None = None,
    apple: bool = False,
    labels: tuple[str, ...] = (),
) -> Bundle:
    """Build the library and write it with everything that proves it right.

    Parameters
    ----------
    output : Path
        The bundle's folder; replaced as a whole where it already holds a bundle.
    lowered, chosen : Lowered, dict
        The network and its kernels' schedules.
    network : str
        Name for people.
    normalisation : dict, optional
        ``mean`` and ``std`` for each channel of an image in 0 to 1.
    options : dict
        What the user asked for.
    progress : Callable
        Told in a few words what is being done.
    dump_folder : Path, optional
        Where the module is written after each step of the pipeline.
    standalone : str, optional
        Also build the network without a runtime: what its names in C are made of.
    apple : bool
        That also for Apple's systems.
    labels : tuple of str
        Names of the classes, in the order of the first output.

    Raises
    ------
    UsageError, Failure
        If unscheduled kernels answer otherwise than PyTorch: names the operator or the pass.
    """
    with bundles.written_beside(output) as folder, ThreadPoolExecutor(2) as beside:
        progress("computing what PyTorch answers and what each kernel should write")
        # LLVM and PyTorch leave Python's lock to each other.
        inputs = lowered.program.inputs
        proving = beside.submit(
            proof_arrays,
            lowered.program.exported,
            inputs,
            unscheduled_program(lowered.module),
            lowered.stored_inputs,
        )
        functions = {name: choice.function for name, choice in chosen.items()}
        dump = Dump.of(dump_folder, pipeline(target))
        module = link_kernels(lowered, functions, target, dump)
        program = machine_program(module, target, dump)
        progress(f"building the library for {target.name}")
        library = beside.submit(
            compile_program,
            program,
            target,
            folder / bundles.LIBRARY,
            dump,
            saying_what_is_left(progress, "kernel"),
        )
        proof = proving.result()
        answers = written_answers(lowered.module, proof.writes)
        if not agree(answers, proof.expected, target.precision):
            progress("looking for what makes it differ from PyTorch")
            if fault := fault_of(lowered.program, target, proof.values, proof.expected):
                raise fault
        layers = _write_proof(folder, lowered, proof)
        entries = kernel_entries(lowered, chosen)
        # Some programs compute the order: it is a constant once that is folded.
        shuffles = count_shuffles(fold_batch_norm(lowered.program.module))
        library.result()
        statistics = msgspec.convert(normalisation, ImageStatistics | None)
        alone = None
        if standalone is not None:
            progress(f"building {network} without a runtime")
            alone = write_standalone(
                folder, module, target, name=standalone, network=network, inputs=inputs,
                outputs=proof.outputs, normalisation=statistics, apple=apple,
                dump=Dump.of(dump_folder and dump_folder / "standalone", pipeline(target)),
            )  # fmt: skip
        sources = {c.record.source for c in chosen.values() if c.record is not None}
        units = {own.unit for c in chosen.values() if (own := c.own_record) is not None}
        bundles.write_manifest(folder, Manifest(
            network=network, inputs=inputs, outputs=proof.outputs,
            normalisation=statistics, standalone=alone, labels=labels,
            target=target.name, architecture=target.architecture, cpu=target.cpu,
            features=target.features, versions=versions(), options=options, kernels=entries,
            kernel_order=lowered.calls, strips=strip_calls(module),
            joined_in_place=joined_in_place(module),
            symbols=symbols_of(module),
            shuffle_kernels=sum(e.calls for e in entries
                                if is_shuffle(lowered.kernels[e.name])),
            program_shuffles=shuffles,
            score_source=", ".join(sorted(sources)) or None,
            score_unit=", ".join(sorted(units)) or None,
            seeds=() if lowered.stored_inputs else SEEDS,
            stored_inputs=len(lowered.stored_inputs) or 1,
            tolerance=TOLERANCES[target.precision],
            precision=msgspec.convert(target.precision, Precision), threads=target.threads,
            half_scale=lowered.half_scale, layers=layers, kept_float32=lowered.kept,
        ))  # fmt: skip
    return bundles.load_bundle(output)


def _write_proof(folder: Path, lowered: Lowered, proof: ProofArrays) -> tuple[Layer, ...]:
    """Write the arrays of a proof into a bundle's folder; tell the layers that they have."""
    held = held_in_int8(lowered.program.module)
    layers, told = layers_of(lowered.program, proof.writes, proof.values, lowered.half_scale, held)
    samples = samples_of(proof.writes) | told
    np.savez(folder / bundles.REFERENCE, allow_pickle=False, **proof.arrays)
    np.savez(folder / bundles.INTERMEDIATES, allow_pickle=False, **samples)
    return layers


def link_kernels(
    lowered: Lowered, functions: Mapping[str, Any], target: CompileTarget, dump: Dump = Dump()
) -> tvm.IRModule:
    """Put scheduled kernels in place, and decide what is written where.

    Returns
    -------
    tvm.IRModule
        What :func:`compiler.library.machine_program` takes, and what a manifest is read from.
    """
    steps = pipeline(target, lowered.kernels, functions)
    return run_steps(lowered.module, steps_of(steps, Phase.SCHEDULE, Phase.MEMORY), dump)
