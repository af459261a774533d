"""What a bundle says of itself: the records of its manifest, read from JSON with suspicion.

A manifest vouches for a bundle's files, but whoever made the bundle wrote both: each value is
checked for what it can sensibly be before anything is allocated, loaded or printed by it.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from shuffledeploy.compiler.bundle.manifest_entries import (
    LARGEST_TENSORS,
    Count,
    Hash,
    ImageStatistics,
    KernelEntry,
    Layer,
    Name,
    Precision,
    Seed,
    Standalone,
    StripCall,
    Symbol,
    Tensor,
)
from shuffledeploy.compiler.bundle.tolerances import LARGEST_TOLERANCES

FORMAT = 5
MOST_SEEDS = 64
LONGEST_MANIFEST = 1 << 24

Tensors = Annotated[tuple[Tensor, ...], Meta(min_length=1, max_length=64)]
Kernels = Annotated[tuple[KernelEntry, ...], Meta(max_length=10_000)]
Symbols = Annotated[tuple[Symbol, ...], Meta(max_length=100_000)]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a bundle says of itself; fields are named after what they hold.

    Attributes
    ----------
    symbols : dict
        Of each function of the library that does the work of a kernel in another place or on some
        of its rows: the kernel's name.
    standalone : Standalone or None
        The same network without a runtime, where it was asked for.
    program_shuffles : int or None
        Channel shuffles of the program that it was made of; None where a bundle does not tell.
    labels : tuple of str
        Names of the classes, in the order of the first output; empty where nobody said.
    precision : str
        Type of the numbers that the network computes in, between inputs and outputs; kernels that
        write another type say so themselves.
    half_scale : float
        What tensors in half precision hold of what they stand for.
    layers : tuple of Layer
        Those whose tensors PyTorch's are stored for, in the order of the calls.
    kept_float32 : tuple of str
        Layers that compute in float32 in another precision, since the user asked for it.
    threads : int
        For how many the work of each kernel is shared out; on fewer the library is right, too.
    """

    network: Name
    inputs: Tensors
    outputs: Tensors
    normalisation: ImageStatistics | None
    target: Name
    architecture: Symbol
    cpu: Name
    features: Annotated[tuple[Name, ...], Meta(max_length=500)]
    versions: Annotated[dict[Name, Name], Meta(max_length=100)]
    options: Annotated[dict[Name, Any], Meta(max_length=100)]
    kernels: Kernels
    kernel_order: Symbols
    strips: Annotated[tuple[StripCall, ...], Meta(max_length=10_000)]
    joined_in_place: Symbols
    symbols: Annotated[dict[Symbol, Symbol], Meta(max_length=100_000)]
    shuffle_kernels: Count
    score_source: Name | None
    score_unit: Name | None
    seeds: Annotated[tuple[Seed, ...], Meta(max_length=MOST_SEEDS)]
    tolerance: Annotated[float, Meta(gt=0, le=max(LARGEST_TOLERANCES.values()))]
    standalone: Standalone | None = None
    program_shuffles: Count | None = None
    labels: Annotated[tuple[Name, ...], Meta(max_length=100_000)] = ()
    precision: Precision = "float32"
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    half_scale: Annotated[float, Meta(gt=0, le=1)] = 1.0
    layers: Annotated[tuple[Layer, ...], Meta(max_length=100_000)] = ()
    kept_float32: Annotated[tuple[Name, ...], Meta(max_length=100_000)] = ()
    stored_inputs: Annotated[int, Meta(ge=1, le=MOST_SEEDS)] = 1
    files: Annotated[dict[Name, Hash], Meta(max_length=64)] = {}
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.tolerance > LARGEST_TOLERANCES[self.precision]:
            raise ValueError(f"tolerance {self.tolerance} would excuse wrong {self.precision}")
        for what, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            if sum(tensor.bytes for tensor in tensors) > LARGEST_TENSORS:
                raise ValueError(f"{what} take more than {LARGEST_TENSORS >> 20} MiB")
            _require_each_once(what, [tensor.name for tensor in tensors])
        _require_each_once("kernels", [kernel.name for kernel in self.kernels])
        known = {kernel.name: kernel.calls for kernel in self.kernels}
        if Counter(self.kernel_order) != known:
            raise ValueError("kernels and kernel_order do not tell of the same calls")
        calls = [layer.call for layer in self.layers]
        if any(call >= len(self.kernel_order) for call in calls) or len(set(calls)) != len(calls):
            raise ValueError("layers names a call twice, or one that is not listed")
        for what, named in (
            ("strips", {name for call in self.strips for name in call.kernels}),
            ("joined_in_place", set(self.joined_in_place)),
            ("symbols", set(self.symbols.values())),
        ):
            if not known.keys() >= named:
                raise ValueError(f"{what} names a kernel that is not listed")

    @property
    def cases(self) -> int:
        """Inputs of a parity check: those that are stored, then one for each seed."""
        return self.stored_inputs + len(self.seeds)

    @property
    def kernel_calls(self) -> int:
        """Kernel calls of one inference; none for what is joined in place."""
        return len(self.kernel_order) - len(self.joined_in_place)

    @property
    def kernels_by_rules(self) -> tuple[KernelEntry, ...]:
        """The kernels that TVM's own rules made."""
        return tuple(kernel for kernel in self.kernels if kernel.operators)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one inference, from the shapes of its kernels."""
        return sum(kernel.multiply_adds * kernel.calls for kernel in self.kernels)

    @property
    def constant_bytes(self) -> int:
        """Bytes of constants (weights, biases) that one inference reads."""
        return sum(kernel.constant_bytes * kernel.calls for kernel in self.kernels)

    @property
    def kernels_with_record(self) -> int:
        """Kernels to which a tuning record was applied."""
        return sum(kernel.record for kernel in self.kernels)

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


def _require_each_once(what: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"{what} lists a name twice")


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest from JSON.

    Raises
    ------
    ValueError
        If it is of another format, or a field is missing, unknown, of another type, or holds what
        cannot be.
    """
    try:
        fields = msgspec.json.decode(content)
        if not isinstance(fields, dict):
            raise ValueError("it is not an object")
        if fields.get("format") != FORMAT:
            made = f"its format is {str(fields.get('format'))[:20]}, this program reads {FORMAT}"
            raise ValueError(f"{made}: make the bundle again with compile/tune.py")
        return msgspec.convert(fields, Manifest)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def manifest_json(manifest: Manifest) -> bytes:
    """Write a manifest as JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
