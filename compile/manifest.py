"""What a bundle says of itself: the records of its manifest, read from JSON with suspicion."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

FORMAT = 3


@dataclasses.dataclass(frozen=True)
class KernelEntry:
    """One kernel of a network, as its manifest describes it.

    Attributes
    ----------
    name : str
        Name of the kernel.
    calls : int
        How often one inference calls it.
    multiply_adds : int
        Of one call (counted from shapes).
    share : float
        Of the network: by score where every kernel has one, else by multiply-adds.
    record : bool
        Whether a tuning record was applied; else the form's default numbers.
    score : float or None
        The record's score for one call, in the manifest's `score_unit`.
    moves_only : bool
        Whether it only copies or rearranges data.
    constant_bytes : int
        Of the constants (weights, biases) that one call reads in the library.
    """

    name: str
    calls: int
    multiply_adds: int
    share: float
    record: bool
    score: float | None
    moves_only: bool
    constant_bytes: int


@dataclasses.dataclass(frozen=True)
class StripCall:
    """A call of a function that computes some kernels strip by strip.

    Attributes
    ----------
    name : str
        Of the function; groups that are alike share one.
    kernels : tuple of str
        What it calls, in the network's order.
    """

    name: str
    kernels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Name, shape and type of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself; fields are named after what they hold."""

    network: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    normalisation: dict[str, list[float]] | None
    target: str
    architecture: str
    cpu: str
    features: tuple[str, ...]
    versions: dict[str, str]
    options: dict[str, Any]
    kernels: tuple[KernelEntry, ...]
    kernel_order: tuple[str, ...]
    strips: tuple[StripCall, ...]
    joined_in_place: tuple[str, ...]
    shuffle_kernels: int
    score_source: str | None
    score_unit: str | None
    seeds: tuple[int, ...]
    tolerance: float
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    @property
    def kernel_calls(self) -> int:
        """Kernel calls of one inference; none for what is joined in place."""
        return len(self.kernel_order) - len(self.joined_in_place)

    @property
    def calls_by_strips(self) -> int:
        """Kernel calls of one inference whose layers are computed with their neighbours."""
        return sum(len(call.kernels) for call in self.strips)

    @property
    def called(self) -> tuple[KernelEntry, ...]:
        """What the virtual machine may call: kernels, and functions that call some by strips."""
        by_name = {kernel.name: kernel for kernel in self.kernels}
        groups = {call.name: [by_name[k] for k in call.kernels] for call in self.strips}
        return self.kernels + tuple(
            KernelEntry(
                name, sum(call.name == name for call in self.strips),
                sum(k.multiply_adds for k in group),
                sum(k.share / k.calls for k in group), all(k.record for k in group), None,
                all(k.moves_only for k in group), sum(k.constant_bytes for k in group),
            )
            for name, group in groups.items()
        )  # fmt: skip


def parse_manifest(fields: Any) -> Manifest:
    """Read a manifest from JSON, refusing fields that are missing, unknown or of another type."""
    if not isinstance(fields, Mapping):
        raise ValueError("it is not an object")
    if fields.get("format") != FORMAT:
        made = f"its format is {fields.get('format')!r}, this program reads {FORMAT}"
        raise ValueError(f"{made}: make the bundle again")
    names = {field.name for field in dataclasses.fields(Manifest)}
    if set(fields) != names:
        odd = ", ".join(sorted(set(fields) ^ names))
        raise ValueError(f"fields are missing or unknown: {odd}")
    _check_types(fields)
    values = dict(fields)
    for name in ("inputs", "outputs"):
        values[name] = tuple(
            Tensor(str(t["name"]), tuple(int(e) for e in t["shape"]), str(np.dtype(t["dtype"])))
            for t in fields[name]
        )
    values["kernels"] = tuple(KernelEntry(**kernel) for kernel in fields["kernels"])
    for name in ("features", "kernel_order", "joined_in_place", "seeds"):
        values[name] = tuple(fields[name])
    values["strips"] = tuple(
        StripCall(str(call["name"]), tuple(call["kernels"])) for call in fields["strips"]
    )
    known = {kernel.name for kernel in values["kernels"]}
    if any(not known.issuperset(call.kernels) for call in values["strips"]):
        raise ValueError("strips names a kernel that is not listed")
    if not known.issuperset(values["joined_in_place"]):
        raise ValueError("joined_in_place names a kernel that is not listed")
    return Manifest(**values)


def _check_types(fields: Mapping[str, Any]) -> None:
    expected: dict[str, type | tuple[type, ...]] = {
        "network": str, "target": str, "architecture": str, "cpu": str, "inputs": list,
        "outputs": list, "features": list, "versions": dict, "options": dict, "kernels": list,
        "kernel_order": list, "strips": list, "joined_in_place": list, "shuffle_kernels": int,
        "seeds": list,
        "tolerance": (int, float), "files": dict, "normalisation": (dict, type(None)),
        "score_source": (str, type(None)), "score_unit": (str, type(None)),
    }  # fmt: skip
    items = {"features": str, "kernel_order": str, "joined_in_place": str, "seeds": int}
    wrong = [name for name, kind in expected.items() if not isinstance(fields[name], kind)]
    wrong += [
        name
        for name, kind in items.items()
        if name not in wrong and not all(isinstance(item, kind) for item in fields[name])
    ]
    if "tolerance" not in wrong and not 0 <= fields["tolerance"] < math.inf:
        wrong.append("tolerance")
    if wrong:
        raise ValueError(f"{wrong[0]} is not of the right type")
