"""The proof that a bundle carries: what PyTorch answers, and what each kernel should write."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import tvm
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_unflatten
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
    arrays: dict[str, Array] = {}
    outputs: list[Array] = []
    for case, seed in enumerate((0, *SEEDS)):
        values = bundles.seeded_inputs(inputs, seed)
        outputs = answers(exported, values)
        arrays |= {f"output_{case}_{i}": value for i, value in enumerate(outputs)}
        if case == 0:
            arrays |= {f"input_{i}": value for i, value in enumerate(values)}
    specs = tuple(
        Tensor(f"output_{i}", tuple(value.shape), data_type(str(value.dtype)))
        for i, value in enumerate(outputs)
    )
    return arrays, specs


def answers(exported: ExportedProgram, values: list[Array]) -> list[Array]:
    """Ask PyTorch for the tensors of its answer; what it changes of the inputs is a copy."""
    given = [torch.from_numpy(value.copy()) for value in values]
    positional, named = tree_unflatten(given, exported.call_spec.in_spec)
    with torch.no_grad():
        answer = exported.module()(*positional, **named)
    return [np.array(leaf) for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor)]


def expected_intermediates(module: tvm.IRModule, inputs: list[Array]) -> dict[str, Array]:
    """Run every kernel unscheduled on this machine and sample what it writes."""
    with scratch_folder("unscheduled-") as folder:
        library = folder / bundles.LIBRARY
        build_library(expose_intermediates(module), find_target("host"), library)
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
        results = machine[INTERMEDIATES](*(tvm.runtime.tensor(value) for value in inputs))
        return {f"call_{i}": bundles.sample(_written(value)) for i, value in enumerate(results)}


def _written(value: Any) -> Array:
    parts = [value] if hasattr(value, "numpy") else value
    return bundles.joined([part.numpy() for part in parts])
