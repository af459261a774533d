"""What the kernels share: block names, epilogues, padded inputs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

ACCUMULATE = "accumulate"
OUTPUT = "output"
# What is written, before its channels go apart.
FINISHED = "finished"
# What a sum reads, element by element of its windows: inlined, or loaded as vectors first.
TAKEN = "taken"
# Parameter that tells where each output channel is written.
POSITIONS = "positions"
# Parameter that a sum multiplies what it takes with.
WEIGHT = "weight"


class Sliding(Protocol):
    """What slides a window over an image: extents, height before width."""

    @property
    def kernel(self) -> tuple[int, int]:
        """Of the window."""

    @property
    def stride(self) -> tuple[int, int]:
        """From one window to the next."""

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right."""

    @property
    def dilation(self) -> tuple[int, int]:
        """From one element of a window to the next."""


def output_extent(size: int, sliding: Sliding, axis: int) -> int:
    """Count the windows along one axis (0 rows, 1 columns) of an image of that size."""
    padded = size + sliding.padding[axis] + sliding.padding[axis + 2]
    reach = sliding.dilation[axis] * (sliding.kernel[axis] - 1) + 1
    return (padded - reach) // sliding.stride[axis] + 1


def named(name: str, value: Any) -> Any:
    """Give a buffer or variable the name it has in a dumped module."""
    IRBuilder.name(name, value)
    return value


def axes(kinds: str, names: str, loops: Any) -> list[Any]:
    """Bind a block's axes to the loops around it, one for one.

    Parameters
    ----------
    kinds : str
        ``S`` (spatial) or ``R`` (reduction) for each.
    names : str
        Their names, separated by spaces.
    loops : iterable
        The loop variables.
    """
    variables = T.axis.remap(kinds, list(loops))
    return [named(name, v) for name, v in zip(names.split(), variables, strict=True)]


@dataclasses.dataclass(frozen=True)
class EpilogueStep:
    """One operation of an epilogue.

    Attributes
    ----------
    kind : str
        ``bias``, ``residual``, ``relu`` or ``clip``.
    bounds : tuple of float
        Lower and upper bound of ``clip``.
    """

    kind: str
    bounds: tuple[float, float] = (0.0, 0.0)


def epilogue_operands(
    epilogue: tuple[EpilogueStep, ...],
    shape: tuple[int, ...],
    first_bias: tuple[int, ...],
    dtype: str,
) -> list[Any]:
    """Declare the parameters that an epilogue reads, ``None`` for a step that reads none.

    Parameters
    ----------
    epilogue : tuple of EpilogueStep
        The steps.
    shape : tuple of int
        Shape of the kernel's output, NHWC.
    first_bias : tuple of int
        Shape of a bias that comes first: sums start from it.
    dtype : str
        Of their elements.
    """
    operands: list[Any] = []
    for number, step in enumerate(epilogue):
        if step.kind == "bias":
            extents = first_bias if number == 0 else (shape[3],)
            operands.append(T.arg(f"bias_{number}", T.buffer(extents, dtype)))
        elif step.kind == "residual":
            operands.append(T.arg(f"residual_{number}", T.buffer(shape, dtype)))
        else:
            operands.append(None)
    return operands


def number(value: float, like: Any) -> Any:
    """Write a number of the type that an expression has."""
    return tirx.FloatImm(str(like.ty.dtype), value)


def apply_step(step: EpilogueStep, operand: Any, value: Any, at: tuple[Any, ...]) -> Any:
    """Append one step of an epilogue to a value at NHWC index `at`."""
    if step.kind == "bias":
        return value + operand[at[3]]
    if step.kind == "residual":
        return value + operand[at]
    if step.kind == "relu":
        return tirx.max(value, number(0, value))
    if step.kind == "clip":
        lower, upper = (number(bound, value) for bound in step.bounds)
        return tirx.min(tirx.max(value, lower), upper)
    raise ValueError(f"no epilogue step is called {step.kind!r}")


def starting_bias(epilogue: tuple[EpilogueStep, ...]) -> bool:
    """Whether sums can start from a bias instead of from zero."""
    return bool(epilogue) and epilogue[0].kind == "bias"


def apply_steps(
    epilogue: tuple[EpilogueStep, ...], operands: list[Any], value: Any, at: tuple[Any, ...]
) -> Any:
    """Append a whole epilogue to a value at NHWC index `at`."""
    for step, operand in zip(epilogue, operands, strict=True):
        value = apply_step(step, operand, value, at)
    return value


@dataclasses.dataclass(frozen=True)
class Place:
    """One coordinate of a window's element in an image, where windows reach over its edges.

    Attributes
    ----------
    index : PrimExpr
        The coordinate, or the nearest inside the image.
    inside : PrimExpr or None
        Whether the element lies in the image; ``None`` where all do.
    """

    index: Any
    inside: Any

    def or_else(self, value: Any, outside: float) -> Any:
        """Take a value where the element lies in the image, another elsewhere."""
        if self.inside is None:
            return value
        return tirx.Select(self.inside, value, number(outside, value))

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Run what is written within only where the element lies in the image."""
        if self.inside is None:
            yield
        else:
            with T.If(self.inside), T.Then():
                yield

    def or_zero(self, value: Any) -> Any:
        """Take a value where the element lies in the image, zero elsewhere."""
        return self.or_else(value, 0.0)


def place(sliding: Sliding, axis: int, size: int, window: Any, element: Any) -> Place:
    """Find an element of a window along one axis (0 rows, 1 columns) of an image of that size.

    A read outside is moved to the nearest pixel inside, so that no copy of the image with a frame
    of zeros is needed. In scheduled code the conditions stand before unrolled loops: they fold to
    nothing but for the few elements of a tile that can lie outside.
    """
    before, stride = sliding.padding[axis], sliding.stride[axis]
    dilation, extent = sliding.dilation[axis], sliding.kernel[axis]
    index = window * stride + element * dilation - before
    last = (output_extent(size, sliding, axis) - 1) * stride + (extent - 1) * dilation - before
    nearest = index
    if last >= size:
        nearest = tirx.min(nearest, size - 1)
    if before:
        nearest = tirx.max(nearest, 0)
    if nearest is index:
        return Place(index, None)
    # Not "index >= 0": from that TVM's simplifier would conclude that nothing is to be moved, and
    # take the clamp away from a load that runs whether or not its value is selected.
    return Place(nearest, tirx.EQ(nearest, index))
