"""Operators of PyTorch as Relax has them: what TVM's own importer lacks or imports otherwise.

Each converter gets a call in the graph of a `torch.export` program and TVM's importer, and returns
what stands for the call's result. It reads arguments by the names of the operator's schema, and
computes in the type that PyTorch says the result has.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx
from tvm import relax

from shuffledeploy.compiler.frontend.arithmetic_converters import ARITHMETIC
from shuffledeploy.compiler.frontend.call_arguments import (
    Converter,
    arguments,
    named,
)
from shuffledeploy.compiler.frontend.indices import INDEXING
from shuffledeploy.compiler.frontend.layer_converters import LAYERS
from shuffledeploy.compiler.frontend.reduction_converters import REDUCTIONS


def _condition(node: fx.Node, importer: Any) -> Any:
    """Compute both ways and choose: nothing in a program has an effect beside its answer."""
    chosen, ways, operands = importer.env[node.args[0]], node.args[1:3], node.args[3]
    outer, answers = importer.env, []
    given = [outer[operand] if isinstance(operand, fx.Node) else operand for operand in operands]  # type: ignore[union-attr]
    for way in ways:
        graph = outer[way]
        holders = (n for n in graph.graph.nodes if n.op == "placeholder")
        importer.env = dict(zip(holders, given, strict=True))
        answers.append(
            importer._translate_fx_graph(graph, graph.graph.nodes, {}, set(importer.convert_map))
        )
    importer.env = outer
    return tuple(importer.block_builder.emit(relax.op.where(chosen, *both))
                 for both in zip(*answers, strict=True))  # fmt: skip


def _axis_more(node: fx.Node, importer: Any) -> Any:
    given, rank = arguments(node), len(node.meta["val"].shape)
    data = importer.env[given["self"]]
    return importer.block_builder.emit(relax.op.expand_dims(data, [int(given["dim"]) % rank]))


def _axes_less(node: fx.Node, importer: Any) -> Any:
    """Drop axes of one element; counted from the end, they crash TVM's choice of layouts."""
    shape = [int(extent) for extent in node.meta["val"].shape]
    return importer.block_builder.emit(relax.op.reshape(importer.env[node.args[0]], shape))


def _item(node: fx.Node, importer: Any) -> Any:
    """Take a part of what a converter gave, or of what TVM's importer made."""
    whole, place = importer.env[node.args[0]], node.args[1]
    if isinstance(whole, tuple):
        return operator.getitem(whole, place)  # type: ignore[call-overload]
    return importer._getitem(node)


def _scattered(node: fx.Node, importer: Any) -> Any:
    data, axis, index, added = (importer.env.get(a, a) for a in arguments(node).values())
    return importer.block_builder.emit(
        relax.op.scatter_elements(data, index, added, axis=axis, reduction="add")
    )


#: By the names that PyTorch gives its operators' overloads.
CONVERTERS: dict[str, Converter] = {
    **ARITHMETIC,
    **LAYERS,
    **REDUCTIONS,
    **INDEXING,
    "scatter_add.default": _scattered,
    "unsqueeze.default": _axis_more,
    **named("squeeze.dim squeeze.dims squeeze.default", _axes_less),
    "cond": _condition,
    "getitem": _item,
}  # fmt: skip
