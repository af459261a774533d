"""What a C program sees of a standalone network: names, sizes, error codes."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from shuffledeploy.compiler.bundle.manifest_entries import DataType, ImageStatistics, Tensor
from shuffledeploy.compiler.ir.memory_layout import ALIGNMENT
from shuffledeploy.model.errors import UsageError

# ISO C17 (6.4.1) and C++20 (5.11), lower case: what an argument cannot be called.
_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl
    concept const constexpr continue decltype default delete do double else enum explicit
    export extern false float for friend goto if inline int long mutable namespace new
    noexcept not not_eq nullptr operator or or_eq private protected public register requires
    restrict return short signed sizeof static struct switch template this throw true try
    typedef typeid typename union unsigned using virtual void volatile wchar_t while xor
    xor_eq
    """.split()
)
# ISO C17, 7.1.2: a header of ours with the name of one of these would be taken in its place; `c`
# and `m` are libraries, some others headers that ours are compiled with.
_HEADERS = frozenset(
    """
    assert c complex ctype errno fenv float inttypes iso646 jni limits locale m math network
    processor setjmp signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib
    stdnoreturn string tgmath threads time uchar unistd wchar wctype
    """.split()
)
# Macros that a compiler or <stddef.h> may define, and names of the example's own, in small letters.
_MACROS = frozenset("null unix linux arm errno stdin stdout stderr main printf status".split())
_LONGEST_NAME = 60

C_TYPES: dict[DataType, str] = {
    "float32": "float", "float64": "double", "float16": "uint16_t", "int8": "int8_t",
    "int16": "int16_t", "int32": "int32_t", "int64": "int64_t", "uint8": "uint8_t",
    "bool": "uint8_t",
}  # fmt: skip

#: Status of a call that is not done: a pointer is null or not aligned; the workspace is too small.
MISALIGNED, TOO_SMALL = 1, 2
#: The same: there are not so many threads.
NO_SUCH_THREAD = 3


@dataclasses.dataclass(frozen=True)
class Parameter:
    """An input or output.

    Attributes
    ----------
    name : str
        In C.
    tensor : Tensor
        Its name in the program, its shape and type.
    """

    name: str
    tensor: Tensor

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.tensor.shape)

    @property
    def c_type(self) -> str:
        """The type of its elements in C."""
        return C_TYPES[self.tensor.dtype]


@dataclasses.dataclass(frozen=True)
class CInterface:
    """A network as C sees it.

    Attributes
    ----------
    name : str
        What each of its names begins with.
    network, target, architecture : str
        For people: what it is, and what it is for.
    features : tuple of str
        Names in ``/proc/cpuinfo`` that the machine must have.
    inputs, outputs : tuple of Parameter
        In the order in which its functions take them.
    workspace : int
        Bytes of memory that a call needs.
    calls : tuple of str
        The kernels that one inference calls, in order.
    normalisation : ImageStatistics or None
        Of the input's channels.
    threads : int
        That can compute it together.
    """

    name: str
    network: str
    target: str
    architecture: str
    features: tuple[str, ...]
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    workspace: int
    calls: tuple[str, ...]
    normalisation: ImageStatistics | None
    threads: int = 1

    @property
    def tensor_alignment(self) -> int:
        """Bytes to whose multiples inputs and outputs are aligned.

        AArch64 loads vectors from everywhere; x86's aligned loads fault.
        """
        return 4 if self.architecture == "aarch64" else ALIGNMENT

    def macro(self, parameter: Parameter) -> str:
        """Name what the header's macros of an input or output begin with."""
        return f"{self.name}_{parameter.name}".upper()


def c_identifier(name: str) -> str:
    """Make a C identifier of a network's name: lower case, ``_`` for what C does not take.

    Raises
    ------
    UsageError
        If nothing is left of it.
    """
    made = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:_LONGEST_NAME].rstrip("_")
    if not made:
        raise UsageError(f"no C identifier can be made of {name!r}: give one to --standalone")
    if made[0].isdigit():
        made = f"net_{made}"
    return f"{made}_net" if made in _KEYWORDS | _HEADERS else made


def readable_in_c(name: str) -> str:
    """Leave of a name what a comment and a text in C, and one in JSON, take as it is."""
    return re.sub(r'[^ -~]|["\\*?]', "_", name)


def parameters(tensors: Sequence[Tensor], taken: Sequence[Parameter] = ()) -> tuple[Parameter, ...]:
    """Name inputs or outputs in C, each differently, and unlike those that are `taken`."""
    names = {parameter.name for parameter in taken} | {
        "workspace", "workspace_bytes", "ticks", "thread", "meet", "with",
    }  # fmt: skip
    made: list[Parameter] = []
    for number, tensor in enumerate(tensors):
        cleaned = re.sub(r"\W+", "_", tensor.name, flags=re.ASCII).strip("_")
        base = cleaned[:_LONGEST_NAME] or f"tensor_{number}"
        if base[0].isdigit() or base.lower() in _KEYWORDS | _MACROS:
            base = f"tensor_{base}"
        name, again = base, 1
        while name.lower() in {other.lower() for other in names}:
            again += 1
            name = f"{base}_{again}"
        names.add(name)
        made.append(Parameter(name, tensor))
    return tuple(made)
