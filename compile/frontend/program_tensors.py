"""What is read of a saved program's tensors, and what the records of it are made of."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

#: Elements of one tensor, and of all weights together.
MOST_ELEMENTS = 2**31
#: PyTorch's number for the layout of tensors that are not sparse.
STRIDED = 7


class Name(str):
    """A name that stands in code."""


class ArgumentName(str):
    """A name of an operator's argument, or nothing."""


class DottedName(str):
    """A name of a weight, or a key of a dict."""


class Operator(str):
    """A name that leads to an operator."""


class Tree(str):
    """How inputs or outputs are nested: JSON within the JSON."""


class TensorRecord(msgspec.Struct):
    """A record of which fields that are not listed are left out."""


class Choice(msgspec.Struct, forbid_unknown_fields=True):
    """A record of which one field is there, and none that is not listed."""

    def __post_init__(self) -> None:
        given = sum(getattr(self, field) is not UNSET for field in self.__struct_fields__)
        if given != 1:
            raise ValueError(f"one of {', '.join(self.__struct_fields__)} is expected, not {given}")


Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Extent = Annotated[int, Meta(ge=0, le=2**40)]
Code = Annotated[int, Meta(ge=0, le=50)]
Float = float | Literal["Infinity", "-Infinity", "NaN"]
Text = Annotated[str, Meta(max_length=1000)]


class Symbolic(Choice):
    """An extent or a number; an expression is refused."""

    as_int: Extent | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET
    as_expr: Any = UNSET

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.as_expr is not UNSET:
            text = self.as_expr.get("expr_str") if isinstance(self.as_expr, dict) else ""
            raise ValueError(
                f"it has dynamic shapes ({str(text)[:40]!r}): export it with fixed shapes"
            )


class SymbolicArgument(Choice):
    """A number, or the name of one."""

    as_name: Name | UnsetType = UNSET
    as_int: Whole | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET


class TensorDevice(TensorRecord):
    """Where a tensor is: only here."""

    type: Literal["cpu"]
    index: Annotated[int, Meta(ge=0, le=127)] | None = None


class TensorMeta(TensorRecord):
    """Shape and kind of a tensor."""

    dtype: Code
    sizes: Annotated[list[Symbolic], Meta(max_length=32)]
    requires_grad: bool
    device: TensorDevice
    strides: Annotated[list[Symbolic], Meta(max_length=32)]
    storage_offset: Symbolic
    layout: Code

    def __post_init__(self) -> None:
        if self.elements() > MOST_ELEMENTS:
            raise ValueError(f"a tensor of more than {MOST_ELEMENTS} elements is not taken")

    def elements(self) -> int:
        """Count the elements."""
        return math.prod(size.as_int for size in self.sizes if isinstance(size.as_int, int))


class Payload(TensorRecord):
    """One weight or constant: where its bytes are, and what they are."""

    path_name: Annotated[str, Meta(pattern=r"^(?:weight|tensor)_[0-9]{1,6}\Z")]
    is_param: bool
    use_pickle: Literal[False]
    tensor_meta: TensorMeta

    def __post_init__(self) -> None:
        if self.tensor_meta.layout != STRIDED:
            raise ValueError("its layout is sparse, which cannot be deployed")


class Payloads(TensorRecord):
    """All weights, or all constants."""

    config: dict[str, Payload]
