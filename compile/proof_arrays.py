"""The proof that a bundle carries: what PyTorch answers, and what each kernel should write."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
import tvm
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_unflatten
from tvm import relax

from shuffledeploy.compiler.bundle import folder as bundles
from shuffledeploy.compiler.bundle.manifest_entries import Tensor, data_type
from shuffledeploy.compiler.host_machine import loaded_program
from shuffledeploy.compiler.ir.graph import ENTRY, Array, bindings_of, operator, shape_of
from shuffledeploy.compiler.library import machine_program
from shuffledeploy.compiler.passes.memory.expose_intermediates import (
    INTERMEDIATES,
    expose_intermediates,
    kernel_calls,
)
from shuffledeploy.compiler.program_values import one_thread
from shuffledeploy.compiler.targets import HOST, CompileTarget, find_target

#: Of the inputs of a proof beside the first, whose seed is 0.
SEEDS = (1, 2, 3, 4)


@dataclasses.dataclass(frozen=True)
class ProofArrays:
    """What a bundle's proof is made of.

    Attributes
    ----------
    arrays : dict
        The inputs that are kept and PyTorch's answers to all, as a bundle keeps them.
    outputs : tuple of Tensor
        Names, shapes and types of an answer.
    values, expected : list of Array
        The first input and PyTorch's answer to it.
    writes : list of list of Array
        What each kernel call should write for the first input.
    """

    arrays: dict[str, Array]
    outputs: tuple[Tensor, ...]
    values: list[Array]
    expected: list[Array]
    writes: list[list[Array]]


def reference(
    exported: ExportedProgram, inputs: tuple[Tensor, ...], stored: Sequence[list[Array]] = ()
) -> tuple[dict[str, Array], tuple[Tensor, ...]]:
    """Ask PyTorch for its answers to a proof's inputs.

    Parameters
    ----------
    exported : ExportedProgram
        The network.
    inputs : tuple of Tensor
        What it takes.
    stored : sequence
        The proof's inputs, which are kept with the answers. Without any they are drawn from seed 0
        and each of `SEEDS`, and the first is kept.
    """
    arrays: dict[str, Array] = {}
    outputs: list[Array] = []
    ask = answering(exported)
    cases = stored or [bundles.seeded_inputs(inputs, seed) for seed in (0, *SEEDS)]
    for case, values in enumerate(cases):
        outputs = ask(values)
        arrays |= {f"output_{case}_{i}": value for i, value in enumerate(outputs)}
        if case == 0 or stored:
            arrays |= {bundles.input_name(case, i): value for i, value in enumerate(values)}
    specs = tuple(
        Tensor(f"output_{i}", tuple(value.shape), data_type(str(value.dtype)))
        for i, value in enumerate(outputs)
    )
    return arrays, specs


def answering(exported: ExportedProgram) -> Callable[[list[Array]], list[Array]]:
    """Give a function that asks PyTorch for the tensors of a program's answer.

    What the program changes of its inputs is a copy.
    """
    network = exported.module()

    def answers(values: list[Array]) -> list[Array]:
        given = [torch.from_numpy(value.copy()) for value in values]
        positional, named = tree_unflatten(given, exported.call_spec.in_spec)
        with torch.no_grad(), one_thread():
            answer = network(*positional, **named)
        leaves = tree_leaves(answer)
        return [leaf.numpy().copy() for leaf in leaves if isinstance(leaf, torch.Tensor)]

    return answers


def unscheduled_writes(module: tvm.IRModule, inputs: list[Array]) -> list[list[Array]]:
    """Run every kernel of a module unscheduled on this machine; list what each call writes."""
    return writes_of(unscheduled_program(module), inputs)


def unscheduled_program(module: tvm.IRModule) -> tvm.IRModule:
    """Make the program that `writes_of` runs.

    It is made of Relax functions, which TVM lets one thread of a process build at a time.
    """
    return machine_program(expose_intermediates(module), _unoptimised(find_target(HOST)))


def writes_of(program: tvm.IRModule, inputs: list[Array]) -> list[list[Array]]:
    """Compile and run what `unscheduled_program` made, in any thread."""
    with loaded_program(program, _unoptimised(find_target(HOST))) as machine:
        results = machine[INTERMEDIATES](*(tvm.runtime.tensor(value) for value in inputs))
        return [arrays_of(value) for value in results]


def proof_arrays(
    exported: ExportedProgram, inputs: tuple[Tensor, ...], program: tvm.IRModule,
    stored: Sequence[list[Array]] = (),
) -> ProofArrays:  # fmt: skip
    """Ask PyTorch for its answers, and run every kernel unscheduled on the first input.

    Parameters
    ----------
    exported : ExportedProgram
        The network.
    inputs : tuple of Tensor
        What it takes.
    program : tvm.IRModule
        Its kernels, as :func:`unscheduled_program` gave them.
    stored : sequence
        As of :func:`reference`.
    """
    arrays, outputs = reference(exported, inputs, stored)
    values = [arrays[f"input_{i}"] for i in range(len(inputs))]
    expected = [arrays[f"output_0_{i}"] for i in range(len(outputs))]
    return ProofArrays(arrays, outputs, values, expected, writes_of(program, values))


def _unoptimised(target: CompileTarget) -> CompileTarget:
    """Have LLVM translate kernels as they are written: what runs once waits for memory anyhow."""
    return dataclasses.replace(target, options={**target.options, "opt-level": 0})


def samples_of(writes: list[list[Array]]) -> dict[str, Array]:
    """Sample what each kernel call wrote, as a bundle keeps it."""
    return {f"call_{i}": bundles.sample(bundles.joined(parts)) for i, parts in enumerate(writes)}


def written_answers(module: tvm.IRModule, writes: list[list[Array]]) -> list[Array]:
    """Pick the answers of a module out of what its kernel calls wrote."""
    definitions = dict(bindings_of(module))
    places = {variable: place for place, (variable, _) in enumerate(kernel_calls(module))}

    def found(expr: Any) -> list[Array]:
        if expr in places:
            return writes[places[expr]]
        value = definitions.get(expr, expr) if isinstance(expr, relax.Var) else expr
        if isinstance(value, relax.Tuple):
            return [tensor for field in value.fields for tensor in found(field)]
        if isinstance(value, relax.TupleGetItem):
            return [found(value.tuple_value)[int(value.index)]]
        if operator(value) == "relax.reshape":
            return [found(value.args[0])[0].reshape(shape_of(value) or ())]
        assert isinstance(value, relax.Var)
        return found(value)

    return found(module[ENTRY].body.body)


def arrays_of(value: Any) -> list[Array]:
    """Give what TVM's virtual machine answered: a tensor, or several."""
    parts = [value] if hasattr(value, "numpy") else value
    return [part.numpy() for part in parts]
