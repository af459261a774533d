"""Small programs of the kinds that users bring and that no zoo has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from telling_weights import telling
from torch import nn

Inputs = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Odd:
    """A program: how it is made, and inputs of the shapes that it is traced with."""

    make: Callable[[], nn.Module]
    inputs: Inputs
    keywords: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)

    def traced(self) -> torch.export.ExportedProgram:
        """Build and trace it, with weights that are drawn."""
        torch.manual_seed(0)
        network = telling(self.make())
        with torch.no_grad():
            return torch.export.export(network, self.inputs, self.keywords or None)


class Does(nn.Module):
    """A module that does what a function does, with the layers that it is given."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        self._layers = nn.ModuleDict(layers)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        return self._forward(*inputs, **keywords, **self._layers)


def layers(make: Callable[[], nn.Module], *shape: int) -> Odd:
    """Describe a module that takes one tensor of a shape."""
    return Odd(make, (torch.zeros(shape),))


def does(forward: Callable[..., Any], *shape: int) -> Odd:
    """Describe a function that takes one tensor of a shape."""
    return Odd(lambda: Does(forward), (torch.zeros(shape),))


def counts(forward: Callable[..., Any], *shape: int, **parts: nn.Module) -> Odd:
    """Describe a function that takes integers, with the layers that it is given."""
    return Odd(lambda: Does(forward, **parts), (torch.zeros(shape, dtype=torch.int64),))
