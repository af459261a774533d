"""Multiply-adds and parameters, counted in the traced program, layer by layer.

The count is of what is really traced: shapes are read from the graph's nodes, so a convolution
that lost its groups, or a layer that was added, shows. As in the papers, one multiply-add is one
operation ("FLOPs" there), and batch norm, activations and pools count as nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node

CONVOLUTION_KINDS = ("convolution", "grouped", "pointwise", "grouped pointwise", "depthwise")

_CONVOLUTIONS = ("aten.conv2d", "aten.convolution", "aten.conv1d")
#: Index of the two factors among the arguments of each matrix product.
_PRODUCTS = {
    "aten.linear": (0, 1),
    "aten.addmm": (1, 2),
    "aten.mm": (0, 1),
    "aten.matmul": (0, 1),
    "aten.bmm": (0, 1),
    "aten.baddbmm": (1, 2),
}


@dataclass(frozen=True)
class LayerComplexity:
    """Cost of one layer.

    Attributes
    ----------
    name : str
        Path of the module, such as ``stage2.0.compress``; the node's name when it has no weights.
    kind : str
        One of :data:`CONVOLUTION_KINDS`, ``linear``, ``product`` (of two activations), or the
        operator's name for a layer that has parameters and no multiply-adds (``batch_norm``).
    output_shape : tuple of int
        NCHW, or (N, features).
    multiply_adds, parameters : int
        Shared parameters are counted once, in the first layer that uses them.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    multiply_adds: int
    parameters: int


@dataclass(frozen=True)
class Complexity:
    """Cost of a network, for one batch of the traced shape.

    Attributes
    ----------
    layers : tuple of LayerComplexity
        In order of execution.
    """

    layers: tuple[LayerComplexity, ...]

    @property
    def multiply_adds(self) -> int:
        """All multiply-adds."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def convolution_multiply_adds(self) -> int:
        """Those of the convolutions alone: what Table 1 of the ShuffleNet paper counts."""
        return sum(layer.multiply_adds for layer in self.layers if layer.kind in CONVOLUTION_KINDS)

    @property
    def parameters(self) -> int:
        """Trainable values; the running statistics of batch norm are none."""
        return sum(layer.parameters for layer in self.layers)

    def by_kind(self) -> dict[str, int]:
        """Multiply-adds of each kind of layer that has any, largest first."""
        totals: dict[str, int] = {}
        for layer in self.layers:
            totals[layer.kind] = totals.get(layer.kind, 0) + layer.multiply_adds
        return {kind: n for kind, n in sorted(totals.items(), key=lambda item: -item[1]) if n}


def trace_shapes(module: nn.Module, shape: tuple[int, ...]) -> ExportedProgram:
    """Trace a module for counting: no weight is read and nothing is computed.

    Parameters
    ----------
    module : nn.Module
        In eval mode. Made under ``torch.device("meta")`` it takes no memory; any other is moved
        there, and **loses its weights**.
    shape : tuple of int
        Of the input.

    Returns
    -------
    ExportedProgram
        With the shapes on its nodes.
    """
    return torch.export.export(module.to("meta"), (torch.empty(shape, device="meta"),))


def complexity(program: ExportedProgram) -> Complexity:
    """Count the multiply-adds and parameters of a traced program.

    Parameters
    ----------
    program : ExportedProgram
        Of ``torch.export.export``, before or after ``run_decompositions``.

    Returns
    -------
    Complexity
        The layers that have parameters or multiply-adds.
    """
    parameters = dict(program.graph_signature.inputs_to_parameters)
    counted: set[str] = set()
    layers = []
    for node in program.graph.nodes:
        if node.op != "call_function" or _is_view_of_parameter(node, parameters):
            continue
        owned = [_parameter(argument, parameters) for argument in node.all_input_nodes]
        names = [parameters[source.name] for source in owned if source is not None]
        fresh = {
            parameters[source.name]: math.prod(_shape(source))
            for source in owned
            if source is not None and parameters[source.name] not in counted
        }
        counted |= fresh.keys()
        multiply_adds = _multiply_adds(node)
        if not names and not multiply_adds:
            continue
        layers.append(
            LayerComplexity(
                name=names[0].rpartition(".")[0] if names else node.name,
                kind=_kind(node, has_weights=bool(names)),
                output_shape=_shape(node),
                multiply_adds=multiply_adds,
                parameters=sum(fresh.values()),
            )
        )
    return Complexity(tuple(layers))


def _operator(node: Node) -> str:
    """Name an operator without its overload: ``aten.conv2d``."""
    return str(node.target).rpartition(".")[0]


def _shape(node: Node) -> tuple[int, ...]:
    """Shape of a node's first output."""
    value = node.meta["val"]
    value = value[0] if isinstance(value, list | tuple) else value
    return tuple(int(extent) for extent in value.shape)


def _parameter(node: Node, parameters: dict[str, str]) -> Node | None:
    """Find the parameter behind a node: itself, or what it transposes or reshapes."""
    views = ("aten.t", "aten.transpose", "aten.permute", "aten.view", "aten.reshape")
    while node.op == "call_function" and _operator(node) in views:
        node = node.all_input_nodes[0]
    return node if node.name in parameters else None


def _is_view_of_parameter(node: Node, parameters: dict[str, str]) -> bool:
    """Tell a mere transpose of a weight: no layer of its own."""
    return _parameter(node, parameters) is not None


def _multiply_adds(node: Node) -> int:
    """Each value of the output sums as many products as a filter, or a row, is long."""
    operator = _operator(node)
    if operator in _CONVOLUTIONS:
        return math.prod(_shape(node)) * math.prod(_shape(node.args[1])[1:])
    if operator in _PRODUCTS:
        left = node.args[_PRODUCTS[operator][0]]
        return math.prod(_shape(node)) * _shape(left)[-1]
    return 0


def _kind(node: Node, *, has_weights: bool) -> str:
    """Name the kind of layer, as the papers do."""
    operator = _operator(node)
    if operator in _PRODUCTS:
        return "linear" if has_weights else "product"
    if operator not in _CONVOLUTIONS:
        name = operator.removeprefix("aten.")
        return "batch_norm" if "batch_norm" in name else name
    in_channels = _shape(node.args[0])[1]
    group_channels, *kernel = _shape(node.args[1])[1:]
    groups = in_channels // group_channels
    if groups == in_channels > 1 and math.prod(kernel) > 1:
        return "depthwise"
    words = ["grouped"] if groups > 1 else []
    words += ["pointwise"] if math.prod(kernel) == 1 else []
    return " ".join(words) or "convolution"
