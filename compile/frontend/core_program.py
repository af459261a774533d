"""A program of few operators: what TVM's importer lacks is decomposed, what cannot be is refused.

A compiled network is a function of its inputs: it keeps nothing between two calls and draws no
numbers. A program that does is refused by the name of what it changes or draws.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch._decomp import decomposition_table
from torch.export import ExportedProgram, default_decompositions
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from shuffledeploy.compiler.frontend.call_arguments import arguments
from shuffledeploy.compiler.frontend.converters import CONVERTERS
from shuffledeploy.compiler.frontend.plain_decomposition import plainly_decomposed
from shuffledeploy.model.errors import UsageError

#: What TVM's importer takes but computes otherwise than PyTorch, and PyTorch can decompose.
_DECOMPOSED = frozenset({"grid_sampler_2d.default", "_native_batch_norm_legit_functional.default"})
#: What PyTorch would decompose into comparisons and choices, or into arithmetic of places.
_KEPT = (
    torch.ops.aten._prelu_kernel.default,
    torch.ops.aten.reflection_pad2d.default,
    torch.ops.aten.replication_pad2d.default,
)
#: What it computes otherwise, and nothing decomposes.
_REFUSED = frozenset({"_upsample_bilinear2d_aa.default", "masked_select.default"})
#: What moves or casts tensors of half precision, and rounds nothing that PyTorch does not.
_EXACT = frozenset({
    "_to_copy", "view", "permute", "transpose", "expand", "unsqueeze", "squeeze", "slice", "select",
    "cat", "clone", "alias", "relu", "neg", "abs", "maximum", "minimum", "where", "flip", "full",
    "full_like", "gt", "lt", "ge", "le", "eq", "ne", "max_pool2d_with_indices", "embedding",
})  # fmt: skip
#: What ends a program where a value is none that the operator behind it takes.
_CHECKS = (torch.ops.aten._assert_async.msg, torch.ops.aten._assert_async.default)
_HALVES = {torch.float16: "float16", torch.bfloat16: "bfloat16"}


def core_program(exported: ExportedProgram) -> ExportedProgram:
    """Decompose a program into operators that can be imported.

    Raises
    ------
    UsageError
        If it has an operator that cannot be: names it and says why. If it keeps a state, draws
        random numbers, or has tensors whose extents or types cannot be compiled.
    """
    program = plainly_decomposed(exported) or exported.run_decompositions(_usual_decompositions())
    for _ in range(4):
        table = {op: decomposition_table[op] for op in _unknown(program)
                 if op in decomposition_table}  # fmt: skip
        if not table:
            break
        program = program.run_decompositions(table)
    _leave_out_checks(program)
    _refuse_answers(program)
    _refuse_state(program)
    for node in _calls(program.graph_module):
        _refuse_node(node)
    unknown = sorted({str(op) for op in _unknown(program)})
    if unknown:
        raise UsageError(f"TVM cannot import these operators of the program: {', '.join(unknown)}")
    return program


def _usual_decompositions() -> Any:
    """Give PyTorch's table without what is kept; it takes a tenth of a second to list."""
    table = default_decompositions()
    for op in _KEPT:
        table.pop(op, None)
    return table


@functools.cache
def importable() -> frozenset[str]:
    """List the operators by the names of their overloads that can be imported as they are."""
    return frozenset({*ExportedProgramImporter().create_convert_map(), *CONVERTERS}) - (
        _DECOMPOSED | _REFUSED
    )


@functools.cache
def decomposable() -> frozenset[str]:
    """List the operators, without their overloads, that PyTorch decomposes."""
    tables = [*decomposition_table, *default_decompositions()]
    found = [op for op in tables if isinstance(op, torch._ops.OpOverload)]
    return frozenset(op._schema.name.split("::")[1] for op in found if op.namespace == "aten")


def _calls(module: fx.GraphModule) -> Iterator[fx.Node]:
    """Yield the calls of a graph and of those that it holds."""
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            yield from (node for node in part.graph.nodes if node.op == "call_function")


def _unknown(program: ExportedProgram) -> set[Any]:
    return {n.target for n in _calls(program.graph_module) if _name(n) not in importable()}


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _leave_out_checks(program: ExportedProgram) -> None:
    """Take out checks of values, for which a device's runtime has no function, from a new program.

    What they protect are indices, which `compiler.frontend.indices` brings into range.
    """
    for node in [node for node in _calls(program.graph_module) if node.target in _CHECKS]:
        graph = node.graph
        graph.erase_node(node)
        graph.eliminate_dead_code()


def _refuse_state(program: ExportedProgram) -> None:
    """Refuse answers that depend on what a call changes; a change that none reads is left out."""
    changed = set(program.graph_signature.buffers_to_mutate.values())
    names = program.graph_signature.inputs_to_buffers
    answers = {str(name) for name in program.graph_signature.user_outputs}
    ending = program.graph.output_node().args[0]
    read = [n for n in ending if isinstance(n, fx.Node) and n.name in answers]  # type: ignore[union-attr]
    seen: set[fx.Node] = set()
    while read:
        node = read.pop()
        if node in seen:
            continue
        seen.add(node)
        read.extend(node.all_input_nodes)
        buffer = names.get(node.name)
        if node.op == "placeholder" and buffer in changed:
            raise UsageError(
                f"the program changes its buffer {buffer!r}, on which its answer depends: a"
                " compiled network keeps nothing between calls; export it in evaluation mode, or"
                " take the buffer as an input and return it"
            )


def _refuse_node(node: fx.Node) -> None:
    """Refuse random numbers, extents that values decide, and types that nothing here computes."""
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags and _draws(node):
        raise UsageError(
            f"the program draws random numbers ({node.target}): a compiled network answers the"
            " same each time; draw them outside and give them as an input"
        )
    values = node.meta.get("val")
    for value in values if isinstance(values, list | tuple) else (values,):
        if isinstance(value, torch.Tensor):
            _refuse_tensor(node, value)


def _draws(node: fx.Node) -> bool:
    """Whether a call of an operator that may draw does so: some do in training only."""
    given = arguments(node)
    return bool(given.get("training", given.get("train", True)))


def _refuse_answers(program: ExportedProgram) -> None:
    for answer in program.graph_signature.user_outputs:
        if not isinstance(answer, str | None):
            raise UsageError(f"the program answers with {answer!r}: only tensors can be answers")


def _refuse_tensor(node: fx.Node, value: torch.Tensor) -> None:
    if any(not isinstance(extent, int) for extent in value.shape):
        raise UsageError(
            f"{node.target} gives as many elements as the values decide: extents must be fixed"
        )
    base = str(node.target).removeprefix("aten.").split(".")[0]
    if value.dtype.is_complex:
        raise UsageError(f"{node.target} gives complex numbers, for which TVM has no code")
    if value.dtype in _HALVES and base not in _EXACT and _name(node) != "getitem":
        raise UsageError(
            f"{node.target} computes in {_HALVES[value.dtype]}, which rounds otherwise here than in"
            " PyTorch: export the program in float32 (network.float())"
        )
