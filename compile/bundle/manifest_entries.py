"""What a manifest lists: kernels, layers, tensors, and what their fields can sensibly be."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from shuffledeploy.model.errors import UsageError

# Of all inputs, and of all outputs: an image of 4096x4096 in three colours has 200 MB.
LARGEST_TENSORS = 1 << 30

#: A name: printable, for it is shown on terminals.
Name = Annotated[str, Meta(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
#: A name in the library.
Symbol = Annotated[str, Meta(pattern=r"^[\w.$+-]{1,300}$")]
Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Extent = Annotated[int, Meta(ge=1, le=1 << 31)]
Seed = Annotated[int, Meta(ge=0, lt=1 << 32)]
Figure = Annotated[float, Meta(ge=-1e6, le=1e6)]
DataType = Literal[
    "float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool"
]
Precision = Literal["float32", "float16", "int8"]
_BYTES = {"float64": 8, "int64": 8, "float16": 2, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}


class KernelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    element : str
        Type of the numbers that it writes.
    operators : tuple of str
        The program's operators that TVM's own rules made it of; none of a kernel of this project's.
    """

    name: Symbol
    calls: Annotated[int, Meta(ge=1, le=1_000_000)]
    multiply_adds: Count
    share: Annotated[float, Meta(ge=0, le=1)]
    record: bool
    score: Annotated[float, Meta(gt=0, lt=1e30)] | None
    moves_only: bool
    constant_bytes: Count
    element: Annotated[str, Meta(pattern=r"^\w{1,20}$")] = "float32"
    operators: tuple[Symbol, ...] = ()


class StripCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call of a function that computes some kernels strip by strip.

    Attributes
    ----------
    name : str
        Of the function; groups that are alike share one.
    kernels : tuple of str
        What it calls, in the network's order.
    """

    name: Symbol
    kernels: Annotated[tuple[Symbol, ...], Meta(min_length=1, max_length=10_000)]


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layer of the program whose tensor a kernel call writes.

    Attributes
    ----------
    call : int
        Which of the kernel calls, from 0.
    name : str
        The module of the program that sums up or joins there.
    operator : str
        The operator whose tensor is written: the last that was fused into the kernel.
    scale, zero : float, int
        A number x that is written stands for (x - zero) * scale.
    """

    call: Count
    name: Name
    operator: Name
    scale: Annotated[float, Meta(gt=0, lt=1e30)] = 1.0
    zero: Annotated[int, Meta(ge=-128, le=127)] = 0


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, shape and type of an input or output."""

    name: Name
    shape: Annotated[tuple[Extent, ...], Meta(max_length=8)]
    dtype: DataType

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return math.prod(self.shape) * _BYTES.get(self.dtype, 4)


class Standalone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle's network as C functions, which need no runtime.

    Attributes
    ----------
    name : str
        What the names of its functions and files begin with.
    workspace : int
        Bytes of memory that a call needs.
    calls : tuple of str
        The functions that one inference calls, in order: kernels, and those that call some by
        strips.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,70}$")]
    workspace: Annotated[int, Meta(ge=0, le=LARGEST_TENSORS * 4)]
    calls: Annotated[tuple[Symbol, ...], Meta(max_length=10_000)]

    @property
    def header(self) -> str:
        """Name of the header."""
        return f"{self.name}.h"

    @property
    def object(self) -> str:
        """Name of the object."""
        return f"{self.name}.o"

    @property
    def archive(self) -> str:
        """Name of the static library."""
        return f"lib{self.name}.a"

    @property
    def library(self) -> str:
        """Name of the shared library."""
        return f"lib{self.name}.so"

    @property
    def apple_archive(self) -> str:
        """Name of the static library for Apple's systems, which not every bundle has."""
        return f"lib{self.name}-apple.a"


class ImageStatistics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of each channel of an image in 0 to 1."""

    mean: Annotated[tuple[Figure, ...], Meta(min_length=1, max_length=16)]
    std: Annotated[
        tuple[Annotated[float, Meta(gt=0, le=1e6)], ...], Meta(min_length=1, max_length=16)
    ]


def data_type(name: str) -> DataType:
    """Give a type of elements by its name.

    Raises
    ------
    UsageError
        If inputs and outputs cannot be of it.
    """
    try:
        return msgspec.convert(name, DataType)
    except msgspec.ValidationError:
        raise UsageError(f"tensors of {name} cannot be inputs or outputs") from None
