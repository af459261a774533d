"""How a project names the tensors of a family of networks, and how its networks differ."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import nn

from shuffledeploy.model.registry import Normalisation, construct
from shuffledeploy.model.weights import State, is_counter


def unchanged(module: nn.Module, state: State) -> State:
    """Take values as they are."""
    return state


@dataclasses.dataclass(frozen=True)
class Naming:
    """The names of one project for one family of networks.

    Attributes
    ----------
    publisher, family : str
        For people.
    networks : tuple of str
        Networks of the zoo whose weights come under these names; they have the same layers.
    layer : Callable
        Gives the project's name of a layer by ours.
    convert : Callable
        Takes the module and the file's values under our names, in the file's precision; gives the
        values with which our module computes what the project's does. It may change the direction
        of the module's shuffles.
    absent : tuple of str
        Tensors of ours that the project's network has not; `convert` adds them.
    normalisation : Normalisation or None
        Of the images that the project trains with, where it is not the network's in the zoo.
    """

    publisher: str
    family: str
    networks: tuple[str, ...]
    layer: Callable[[str], str]
    convert: Callable[[nn.Module, State], State] = unchanged
    absent: tuple[str, ...] = ()
    normalisation: Normalisation | None = None

    @property
    def names(self) -> dict[str, str]:
        """The project's name of each tensor that it has, by ours."""
        return {
            key: f"{self.layer(key.rpartition('.')[0])}.{key.rpartition('.')[2]}"
            for key in shapes_of(self.networks[0])
            if key not in self.absent
        }


@functools.cache
def shapes_of(network: str) -> dict[str, tuple[int, ...]]:
    """Give the shapes of a network's tensors by name; batch norms' counters are left out."""
    with torch.device("meta"):
        state = construct(network).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in state.items() if not is_counter(key)}
