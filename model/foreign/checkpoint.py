"""From a file of weights to a network: whose names it has, which network, converted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.fashion_data import FASHION
from shuffledeploy.model.foreign.naming import Naming, shapes_of
from shuffledeploy.model.foreign.other_namings import MOBILENETS, OTHER_NAMINGS
from shuffledeploy.model.foreign.shufflenet_namings import NETWORKS, SHUFFLENET_NAMINGS
from shuffledeploy.model.printable import printable_line
from shuffledeploy.model.registry import Normalisation, construct, normalisation
from shuffledeploy.model.shufflenet import ShuffleUnit
from shuffledeploy.model.weights import (
    NAMED_FAULTS,
    State,
    first_few,
    is_counter,
    put_state,
    read_state,
    weight_fault,
)

#: Those of a classifier; more would take the memory of a claim, not of a file.
MOST_CLASSES = 100_000
#: Share of names that a file has in common with a naming that is worth to be mentioned.
ALIKE = 0.5

OURS = "shuffledeploy"
_OWN_NAMINGS = tuple(
    Naming(OURS, family, networks, str)
    for family, networks in (
        ("ShuffleNet V1", (*NETWORKS, FASHION)), ("MobileNet V1", MOBILENETS),
        ("ResNeXt", ("resnext50-32x4d",)), ("AlexNet", ("alexnet",)),
    )
)  # fmt: skip
NAMINGS = (*_OWN_NAMINGS, *SHUFFLENET_NAMINGS, *OTHER_NAMINGS)

ADVICE = "a network that is not in the zoo comes as a program (--program)"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A network with the weights of a file.

    Attributes
    ----------
    path : Path
        The file.
    network : str
        Name in the registry.
    publisher, family : str
        Whose names the file has, for which family of networks.
    classes : int
        Of its classifier.
    turned_shuffles : int
        Shuffles that go the other way about in `module`, as they do there.
    normalisation : Normalisation
        Of the images that it was trained with.
    module : nn.Module
        In eval mode, without gradients.
    """

    path: Path
    network: str
    publisher: str
    family: str
    classes: int
    turned_shuffles: int
    normalisation: Normalisation
    module: nn.Module

    @property
    def sentence(self) -> str:
        """Say what the file was recognised as."""
        turned = f", {self.turned_shuffles} shuffles turned about" * bool(self.turned_shuffles)
        return (
            f"weights of {self.network} under {self.publisher}'s names, {self.classes} classes"
            f"{turned}"
        )


def read_checkpoint(path: Path, network: str | None = None) -> Checkpoint:
    """Read a file of weights, recognise whose it is, and make the network of the zoo with it.

    Parameters
    ----------
    path : Path
        A file that ``torch.save`` wrote; see `model.weights`.
    network : str, optional
        Name in the registry that it must be of; else the file tells.

    Raises
    ------
    UsageError
        The file is no checkpoint, of no network of the zoo, of another than `network`, or its
        values cannot be weights. The message has the nearest match.
    """
    values = {key: value for key, value in read_state(path).items() if not is_counter(key)}
    naming, found = _recognised(path, values, network)
    own = {ours: values[theirs] for ours, theirs in naming.names.items()}
    classes = _classes(path, naming, found, own)
    faults = [fault for key, value in values.items() if (fault := _fault(key, value))]
    if faults:
        raise UsageError(f"{path} holds what cannot be weights: {first_few(faults)}")
    module = construct(found, classes)
    put_state(module, naming.convert(module, own), path)
    return Checkpoint(
        path, found, naming.publisher, naming.family, classes, _turned_shuffles(module),
        naming.normalisation or normalisation(found), module,
    )  # fmt: skip


def _recognised(path: Path, values: State, network: str | None) -> tuple[Naming, str]:
    """Find whose names a file has, and of which network its shapes are."""
    # A twin or a network for comparisons stands in no naming.
    asked = () if network is None else (Naming(OURS, network, (network,), str),)
    candidates = (*asked, *NAMINGS)
    exact = [naming for naming in candidates if set(naming.names.values()) == values.keys()]
    if not exact:
        raise UsageError(f"{path} {_unknown_names(values, candidates)}")
    pairs = [(naming, one) for naming in exact for one in naming.networks]
    misfits = {pair: list(_misfits(*pair, values)) for pair in pairs}
    fitting = [pair for pair in pairs if not misfits[pair]]
    if not fitting:
        wanted = [pair for pair in pairs if pair[1] == network] or pairs
        naming, nearest = min(wanted, key=lambda pair: len(misfits[pair]))
        raise UsageError(
            f"{path} has {naming.publisher}'s names of {naming.family}, but the shapes of no"
            f" network of the zoo: the nearest is {nearest}, and"
            f" {first_few(misfits[naming, nearest])}; {ADVICE}"
        )
    naming, found = next((pair for pair in fitting if pair[1] == network), fitting[0])
    if network is not None and found != network:
        raise UsageError(
            f"{path} holds weights of {found} under {naming.publisher}'s names, not of {network}:"
            f" take --model {found}, or leave --model out"
        )
    return naming, found


def _unknown_names(values: State, candidates: tuple[Naming, ...]) -> str:
    """Say what a file is nearest to whose names are nobody's."""

    def likeness(naming: Naming) -> float:
        names = set(naming.names.values())
        return len(names & values.keys()) / len(names | values.keys())

    nearest = max(candidates, key=likeness)
    if likeness(nearest) < ALIKE:
        first = ", ".join(printable_line(key) for key in list(values)[:NAMED_FAULTS])
        return (
            f"holds weights of no network that is known here: {len(values)} tensors, the first of"
            f" them {first}; {ADVICE}"
        )
    names = set(nearest.names.values())
    faults = [f"{key} is missing" for key in nearest.names.values() if key not in values]
    faults += [f"{printable_line(key)} is not among them" for key in values if key not in names]
    return (
        f"has nearly {nearest.publisher}'s names of {nearest.family}"
        f" ({len(names & values.keys())} of {len(names)}), but {first_few(faults)}; {ADVICE}"
    )


def _misfits(naming: Naming, network: str, values: State) -> Iterator[str]:
    """Say which tensors have other shapes; of the classifier the number of classes is free."""
    classifier = _classifier(network)
    for ours, shape in shapes_of(network).items():
        if ours in naming.absent:
            continue
        theirs = naming.names[ours]
        there = tuple(values[theirs].shape)
        free = ours.rpartition(".")[0] == classifier
        if len(there) != len(shape) or there[free:] != shape[free:]:
            yield f"{theirs} is {there}, where it has {shape}"


def _classifier(network: str) -> str:
    """Name the layer that gives the logits: the last one."""
    return list(shapes_of(network))[-1].rpartition(".")[0]


def _classes(path: Path, naming: Naming, network: str, own: State) -> int:
    """Count the classes, which the file may claim as many of as it likes."""
    key = f"{_classifier(network)}.weight"
    weight = own[key]
    classes = len(weight)
    if weight.layout is torch.strided and weight.device.type == "cpu" and not weight.is_quantized:
        has = weight.untyped_storage().nbytes()
        if not 1 <= classes <= MOST_CLASSES or weight.numel() * weight.element_size() > has:
            raise UsageError(f"{path}: {naming.names[key]} claims {classes} classes")
    return classes


def _fault(key: str, value: torch.Tensor) -> str | None:
    fault = weight_fault(printable_line(key), value)
    if fault is None and not value.is_floating_point():
        fault = f"{printable_line(key)} holds no floating-point numbers"
    return fault


def _turned_shuffles(module: nn.Module) -> int:
    units = (unit for unit in module.modules() if isinstance(unit, ShuffleUnit))
    return sum(unit.shuffles and unit.shuffle_groups != unit.expand.groups for unit in units)
