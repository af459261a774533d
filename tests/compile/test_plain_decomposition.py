"""Core operators written one by one are those of PyTorch's own decomposition, or none are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.export import ExportedProgram, default_decompositions

from shuffledeploy.compiler.frontend.importing import tensor_calls
from shuffledeploy.compiler.frontend.plain_decomposition import plainly_decomposed
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.program_values import tensors_of_calls
from shuffledeploy.compiler.zoo import trace_network


class _Usual(nn.Module):
    """One of each operator that is written plainly, in place where it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8)
        self.linear, self.plain = nn.Linear(8, 5), nn.Linear(5, 4, bias=False)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = F.relu(self.norm(self.convolution(input)), inplace=True)
        x = F.max_pool2d(x * 4 - 2, 3, 2, 1)
        first, second = F.hardswish(x).chunk(2, 1)
        x = torch.cat([F.hardsigmoid(second), first / 2], 1)
        x = x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1)) - x.mean((2, 3), keepdim=True)
        doubled = x * 2
        doubled += F.leaky_relu(x)
        shuffled = doubled.view(1, 2, 4, 8, 8).transpose(1, 2).contiguous().view(1, 8, 8, 8)
        other = shuffled.reshape(1, 4, 2, 8, 8).permute(0, 2, 1, 3, 4).reshape(1, 8, 8, 8)
        parts = torch.split(F.silu(other), 4, 1)
        rows = F.dropout(F.avg_pool2d(other, 8).flatten(1), training=False)
        rows = F.hardtanh(F.relu6(self.linear(rows)), inplace=True)
        pooled = F.adaptive_avg_pool2d(x, 4)
        return self.plain(F.gelu(rows)), pooled, parts[1], shuffled[:, 1:3].unsqueeze(0)


def _operators(program: ExportedProgram) -> list[Any]:
    """List the calls of a program with their arguments, tensors by their places."""
    places = {node: place for place, node in enumerate(program.graph.nodes)}
    return [
        (str(node.target), fx.map_arg((node.args, node.kwargs), lambda read: places[read]))
        for node in program.graph.nodes
        if node.op == "call_function"
    ]


def _by_pytorch(exported: ExportedProgram) -> ExportedProgram:
    return exported.run_decompositions(default_decompositions())


@pytest.mark.smoke
def test_each_usual_operator_becomes_what_pytorch_makes_of_it() -> None:
    exported = trace(_Usual(), (1, 3, 33, 33))
    plain, whole = plainly_decomposed(exported), _by_pytorch(exported)
    assert plain is not None
    ours, theirs = ([name for name, _ in _operators(program)] for program in (plain, whole))
    # PyTorch leaves out copies of what is in order already, and calls that nothing reads.
    assert sorted(set(ours)) == sorted(set(theirs))
    assert plain.graph_signature == exported.graph_signature
    inputs = [np.random.default_rng(0).standard_normal((1, 3, 33, 33), np.float32)]
    for value, expected in zip(_answers(plain, inputs), _answers(whole, inputs), strict=True):
        np.testing.assert_array_equal(value, expected)


def _answers(program: ExportedProgram, inputs: list[Array]) -> list[Array]:
    """Give what a program of core operators answers."""
    values = tensors_of_calls(program, inputs, np.copy)
    by_call = dict(zip(tensor_calls(program), values, strict=True))
    return [by_call[node] for node in program.graph.output_node().args[0]]


@pytest.mark.parametrize("name", ["shufflenet-fashion", "alexnet"])
def test_a_network_of_the_zoo_is_the_same_call_by_call(name: str) -> None:
    exported = trace_network(name)
    plain = plainly_decomposed(exported)
    assert plain is not None
    assert _operators(plain) == _operators(_by_pytorch(exported))


class _Seen(nn.Module):
    """What is written over is read in another shape."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled = x * 2
        flat = doubled.view(1, -1)
        torch.relu_(doubled)
        return flat


class _Viewed(nn.Module):
    """What is written over is a part of a tensor that is read again."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled = x * 2
        doubled[:, :1].relu_()
        return doubled


class _Input(nn.Module):
    """What is written over is the caller's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu_() + 1


class _Training(nn.Module):
    """Keeps a state."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


class _Unusual(nn.Module):
    """Has an operator that no line here knows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x, 1)


class _OneImage(nn.Module):
    """Reads an image without a batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x[0], 2)


class _Integers(nn.Module):
    """Computes in whole numbers, which round otherwise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.int32) * 2


@pytest.mark.parametrize(
    "module",
    [_Seen, _Viewed, _Input, _Training, _Unusual, _OneImage, _Integers],
    ids=lambda module: module.__name__,
)
def test_what_is_not_plain_is_left_to_pytorch(module: type[nn.Module]) -> None:
    assert plainly_decomposed(trace(module(), (1, 3, 4, 4))) is None
