"""Layers that stay float32 in half precision or int8, by the names that people know them by.

Passes fuse operators and put channels in another order before a network's types are chosen. So a
layer is found by its numbers, as in a bundle (:mod:`compiler.layer_values`): what each chain of
operators computes, unscheduled and on this machine, is compared with what PyTorch computes.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

from tvm import relax

from shuffledeploy.compiler.bundle.folder import seeded_inputs
from shuffledeploy.compiler.frontend.program import Program
from shuffledeploy.compiler.ir.attributes import KEPT_FLOAT32
from shuffledeploy.compiler.ir.graph import rewrite
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF, INT8
from shuffledeploy.compiler.layer_values import layer_names
from shuffledeploy.compiler.passes.graph.compute_in_half import compute_in_half
from shuffledeploy.compiler.passes.graph.compute_in_int8 import compute_in_int8
from shuffledeploy.compiler.passes.graph.kept_layers import layer_chains
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.proof_arrays import unscheduled_writes, written_answers
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.model.errors import UsageError

_PASSES = (compute_in_half.__name__, compute_in_int8.__name__)
# Names that a message lists at most.
_LISTED = 5


def with_kept_layers(
    program: Program, target: CompileTarget, names: Sequence[str]
) -> tuple[Program, tuple[str, ...]]:
    """Mark the layers of a program that are to stay float32.

    Parameters
    ----------
    program : Program
        As it was imported.
    target : CompileTarget
        What it is compiled for, in half precision or int8.
    names : sequence of str
        Of layers as ``run.py --layers`` tells them, or of modules that hold some.

    Returns
    -------
    tuple
        The program, its module marked, and the names of the layers that stay.

    Raises
    ------
    UsageError
        If the network computes in float32 anyway, or a name is that of no layer: tells the nearest.
    """
    if target.precision == FLOAT:
        raise UsageError(f"to keep layers in {FLOAT} goes with --precision {HALF} or {INT8}")
    steps = steps_of(pipeline(target), Phase.GRAPH)
    place = next(number for number, step in enumerate(steps) if step.name in _PASSES)
    before = run_steps(program.module, steps[:place])
    ends = relax.Tuple([chain.variables[-1] for chain in layer_chains(before)])
    shown = run_steps(rewrite(before, lambda *_: None, lambda _: ends), steps[place + 1 :])
    inputs = seeded_inputs(program.inputs, 0)
    told = written_answers(shown, unscheduled_writes(shown, inputs))
    layers = layer_names(program, told, inputs)
    for name in names:
        if not any(_is_in(layer, name) for layer in layers):
            raise UsageError(_unknown(name, layers))
    kept = [n for n, layer in enumerate(layers) if any(_is_in(layer, name) for name in names)]
    marked = program.module.with_attr(KEPT_FLOAT32, kept)
    found = tuple(dict.fromkeys(layers[number] for number in kept))
    return dataclasses.replace(program, module=marked), found


def _is_in(layer: str, name: str) -> bool:
    """Whether a layer has a name, or is part of the module that has it."""
    return layer == name or layer.startswith(f"{name}.")


def _unknown(name: str, layers: Sequence[str]) -> str:
    known = sorted({layer for layer in layers if layer})
    near = difflib.get_close_matches(name, known, _LISTED, 0.3) or known[:_LISTED]
    return (
        f"--keep-float32: no layer of this network is called {name!r}: the nearest are"
        f" {', '.join(near)} (deploy/run.py BUNDLE --layers lists all)"
    )
