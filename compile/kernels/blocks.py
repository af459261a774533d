"""What the kernels share: block names, epilogues, padded inputs."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

ACCUMULATE = "accumulate"
OUTPUT = "output"
PAD = "pad"


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation of an epilogue.

    Attributes
    ----------
    kind : str
        ``bias``, ``residual``, ``relu``, ``clip`` or ``sigmoid_product`` (silu).
    bounds : tuple of float
        Lower and upper bound of ``clip``.
    """

    kind: str
    bounds: tuple[float, float] = (0.0, 0.0)


def epilogue_operands(epilogue: tuple[Step, ...], shape: tuple[int, ...]) -> list[Any]:
    """Declare the parameters that an epilogue reads, ``None`` for a step that reads none.

    Parameters
    ----------
    epilogue : tuple of Step
        The steps.
    shape : tuple of int
        Shape of the kernel's output, NHWC.
    """
    operands: list[Any] = []
    for number, step in enumerate(epilogue):
        if step.kind == "bias":
            operands.append(T.arg(f"bias_{number}", T.buffer((shape[3],), "float32")))
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
    """Write the block that copies an input into a larger one, `fill` around it.

    Parameters
    ----------
    x : tirx.Buffer
        NHWC, or NCHW where `channels_first`.
    padding : tuple of int
        Top, left, bottom, right.
    """
    top, left, bottom, right = padding
    _, *extents = [int(extent) for extent in x.shape]
    height, width = extents[1:] if channels_first else extents[:2]
    tall, wide = height + top + bottom, width + left + right
    shape = (1, extents[0], tall, wide) if channels_first else (1, tall, wide, extents[2])
    padded = T.sblock_alloc_buffer(shape, "float32")
    with T.grid(*shape[1:]) as loops:
        with T.sblock(PAD):
            a, b, c = T.axis.remap("SSS", list(loops))
            row, column = (b, c) if channels_first else (a, b)
            inside = tirx.all(row >= top, row < height + top, column >= left, column < width + left)
            at = (
                (0, a, row - top, column - left)
                if channels_first
                else (0, row - top, column - left, c)
            )
            T.buffer_store(padded, T.if_then_else(inside, x[at], T.float32(fill)), [0, a, b, c])
    return padded
