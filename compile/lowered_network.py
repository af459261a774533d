"""A network as calls of unscheduled kernels, after the passes over its graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tvm
from torch.export import ExportedProgram

from shuffledeploy.compiler.bundle import folder as bundles
from shuffledeploy.compiler.frontend.program import Program, import_program
from shuffledeploy.compiler.half_range import HalfRange, range_in_half
from shuffledeploy.compiler.int8_ranges import with_int8_ranges
from shuffledeploy.compiler.ir.attributes import HALF_SCALE
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.ir.memory_layout import HALF, INT8
from shuffledeploy.compiler.kept_float32 import with_kept_layers
from shuffledeploy.compiler.kernels.images import one_image
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls
from shuffledeploy.compiler.pipeline import Dump, Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.proof_arrays import SEEDS
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.records.recorded_schedules import kernel_key


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A network as calls of unscheduled kernels.

    Attributes
    ----------
    program : Program
        What it was made from.
    module : tvm.IRModule
        After all graph passes.
    calls : tuple of str
        Kernels in the order in which one inference calls them.
    half : HalfRange, optional
        How large its numbers get, of a network that computes in half precision.
    kept : tuple of str
        Layers that compute in float32 since that was asked for.
    stored_inputs : tuple
        Inputs on which a network in int8 is to prove itself: of those that its ranges are made for.
    """

    program: Program
    module: tvm.IRModule
    calls: tuple[str, ...]
    half: HalfRange | None = None
    kept: tuple[str, ...] = ()
    stored_inputs: tuple[list[Array], ...] = ()

    @property
    def half_scale(self) -> float:
        """What tensors in half precision hold of what they stand for; 1 in other precisions."""
        return 1.0 if self.half is None else self.half.scale

    @property
    def kernels(self) -> dict[str, Any]:
        """Unscheduled kernels by name."""
        return kernel_functions(self.module)


def lower(
    exported: ExportedProgram,
    target: CompileTarget,
    dump_folder: Path | None = None,
    calibration: Sequence[list[Array]] = (),
    keep_float32: Sequence[str] = (),
) -> Lowered:
    """Run a program through import and all graph passes.

    Parameters
    ----------
    exported : ExportedProgram
        The network.
    target : CompileTarget
        What to compile for.
    dump_folder : Path, optional
        Where the module is written after each step.
    calibration : sequence
        Inputs like those to come, of a network that is to be held in int8; the proof's inputs
        where there are none.
    keep_float32 : sequence of str
        Names of layers that are to compute in float32 in half precision or int8.
    """
    program, steps = import_program(exported), pipeline(target)
    half, kept, stored = None, tuple[str, ...](), tuple[list[Array], ...]()
    if keep_float32:
        program, kept = with_kept_layers(program, target, keep_float32)
    if target.precision == HALF:
        half = range_in_half(program)
        scaled = program.module.with_attr(HALF_SCALE, half.scale)
        program = dataclasses.replace(program, module=scaled)
    if target.precision == INT8:
        proof = [bundles.seeded_inputs(program.inputs, seed) for seed in (0, *SEEDS)]
        scaled = with_int8_ranges(program.module, target, calibration or proof)
        stored = tuple(calibration[: len(proof)])
        program = dataclasses.replace(program, module=scaled)
    dump = Dump.of(dump_folder, steps)
    dump(program.module, "import")
    module = run_steps(program.module, steps_of(steps, Phase.GRAPH), dump)
    calls = tuple(name for _, name in kernel_calls(module))
    return Lowered(program, module, calls, half, kept, stored)


def record_keys(lowered: Lowered, target: CompileTarget) -> set[str]:
    """List the keys by which records of a network's kernels are found."""
    return {kernel_key(f) for f in lowered.kernels.values() if forms(one_image(f), target.core)}
