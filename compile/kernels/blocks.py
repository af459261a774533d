"""What the kernels share: block names, epilogues, padded inputs."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

ACCUMULATE = "accumulate"
OUTPUT = "output"
PAD = "pad"


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
class Step:
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
    epilogue: tuple[Step, ...], shape: tuple[int, ...], first_bias: tuple[int, ...]
) -> list[Any]:
    """Declare the parameters that an epilogue reads, ``None`` for a step that reads none.

    Parameters
    ----------
    epilogue : tuple of Step
        The steps.
    shape : tuple of int
        Shape of the kernel's output, NHWC.
    first_bias : tuple of int
        Shape of a bias that comes first: sums start from it.
    """
    operands: list[Any] = []
    for number, step in enumerate(epilogue):
        if step.kind == "bias":
            extents = first_bias if number == 0 else (shape[3],)
            operands.append(T.arg(f"bias_{number}", T.buffer(extents, "float32")))
        elif step.kind == "residual":
            operands.append(T.arg(f"residual_{number}", T.buffer(shape, "float32")))
        else:
            operands.append(None)
    return operands


def apply_step(step: Step, operand: Any, value: Any, at: tuple[Any, ...]) -> Any:
    """Append one step of an epilogue to a value at NHWC index `at`."""
    if step.kind == "bias":
        return value + operand[at[3]]
    if step.kind == "residual":
        return value + operand[at]
    if step.kind == "relu":
        return tirx.max(value, T.float32(0))
    if step.kind == "clip":
        return tirx.min(tirx.max(value, T.float32(step.bounds[0])), T.float32(step.bounds[1]))
    raise ValueError(f"no epilogue step is called {step.kind!r}")


def starting_bias(epilogue: tuple[Step, ...]) -> bool:
    """Whether sums can start from a bias instead of from zero."""
    return bool(epilogue) and epilogue[0].kind == "bias"


def apply_steps(
    epilogue: tuple[Step, ...], operands: list[Any], value: Any, at: tuple[Any, ...]
) -> Any:
    """Append a whole epilogue to a value at NHWC index `at`."""
    for step, operand in zip(epilogue, operands, strict=True):
        value = apply_step(step, operand, value, at)
    return value


def padded_input(
    x: Any, padding: tuple[int, int, int, int], fill: float, channels_first: bool
) -> Any:
    """Write the blocks that copy an input into a larger one, `fill` around it.

    Parameters
    ----------
    x : tirx.Buffer
        NHWC, or NCHW where `channels_first`.
    padding : tuple of int
        Top, left, bottom, right.
    fill : float
        What stands around the input.
    channels_first : bool
        Which of the two layouts.
    """
    top, left, bottom, right = padding
    _, *extents = [int(extent) for extent in x.shape]
    row_axis = 1 if channels_first else 0
    height, width = extents[row_axis : row_axis + 2]
    tall, wide = height + top + bottom, width + left + right
    shape = [*extents]
    shape[row_axis : row_axis + 2] = [tall, wide]
    padded = named("padded", T.sblock_alloc_buffer((1, *shape), "float32"))
    starts = [0, 0, 0]
    starts[row_axis : row_axis + 2] = [top, left]
    # The fill covers everything: blocks that each cover a part cannot be scheduled (TVM's "region
    # cover"), and stores are cheap beside the sums that follow.
    _fill_or_copy("fill", shape, [0, 0, 0], padded, T.float32(fill))
    _fill_or_copy("inside", extents, starts, padded, x)
    return padded


def _fill_or_copy(name: str, size: list[int], starts: list[int], padded: Any, what: Any) -> None:
    with T.grid(*size) as loops:
        with T.sblock(f"{PAD}_{name}"):
            at = axes("SSS", "i j k", loops)
            value = what[(0, *at)] if name == "inside" else what
            place = [index + start for index, start in zip(at, starts, strict=True)]
            T.buffer_store(padded, value, [0, *place])
