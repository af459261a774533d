"""The proof that a bundle carries: what PyTorch answers, and what each kernel should write."""

from __future__ import annotations

from typing import Any

import torch
import tvm
from torch.export import ExportedProgram
from tvm import relax

from shuffledeploy.compiler.bundle import folder as bundles
from shuffledeploy.compiler.bundle.manifest import Tensor, data_type
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.library import build_library
from shuffledeploy.compiler.passes.memory.expose_intermediates import (
    INTERMEDIATES,
    expose_intermediates,
)
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.model.scratch import scratch_folder

SEEDS = (1, 2, 3, 4)


def reference(
    exported: ExportedProgram, inputs: tuple[Tensor, ...]
) -> tuple[dict[str, Array], tuple[Tensor, ...]]:
    """Ask PyTorch for the outputs of the reference input (seed 0) and of each of `SEEDS`."""
    module = exported.module()
    arrays: dict[str, Array] = {}
    outputs: list[Array] = []
    for case, seed in enumerate((0, *SEEDS)):
        values = bundles.seeded_inputs(inputs, seed)
        with torch.no_grad():
            answer = module(*(torch.from_numpy(value) for value in values))
        outputs = [t.numpy() for t in _flatten(answer)]
        arrays |= {f"output_{case}_{i}": value for i, value in enumerate(outputs)}
        if case == 0:
            arrays |= {f"input_{i}": value for i, value in enumerate(values)}
    specs = tuple(
        Tensor(f"output_{i}", tuple(value.shape), data_type(str(value.dtype)))
        for i, value in enumerate(outputs)
    )
    return arrays, specs


def _flatten(answer: Any) -> list[torch.Tensor]:
    if isinstance(answer, torch.Tensor):
        return [answer]
    if isinstance(answer, dict):
        answer = list(answer.values())
    return [tensor for part in answer for tensor in _flatten(part)]


def expected_intermediates(module: tvm.IRModule, inputs: list[Array]) -> dict[str, Array]:
    """Run every kernel unscheduled on this machine and sample what it writes."""
    with scratch_folder("unscheduled-") as folder:
        library = folder / bundles.LIBRARY
        build_library(expose_intermediates(module), find_target("host"), library)
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
        results = machine[INTERMEDIATES](*(tvm.runtime.tensor(value) for value in inputs))
        return {f"call_{i}": bundles.sample(value.numpy()) for i, value in enumerate(results)}
