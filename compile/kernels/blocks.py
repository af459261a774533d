"""What the kernels share: block names and epilogues."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import FLOAT, INT8
from shuffledeploy.compiler.ir.tvm_edges import NO_ALIAS
from shuffledeploy.compiler.kernels.operations import OPERATIONS, WRITTEN_TIMES, number
from shuffledeploy.compiler.kernels.pixel_order import AS_THEY_LIE, PixelOrder

ACCUMULATE = "accumulate"
OUTPUT = "output"
# What is written, before its channels go apart.
FINISHED = "finished"
# What a sum reads, element by element of its windows: inlined, or loaded as vectors first.
TAKEN = "taken"
# Part of a sum, in fewer digits than the sum.
PARTIAL = "partial"
# Parameter that tells where each output channel is written.
POSITIONS = "positions"
# Parameter that a sum multiplies what it takes with.
WEIGHT = "weight"


def named(name: str, value: Any) -> Any:
    """Give a buffer or variable the name it has in a dumped module."""
    IRBuilder.name(name, value)
    return value


def written(body: Callable[[], None]) -> tirx.PrimFunc:
    """Write a kernel as an unscheduled TIR function, no two buffers of which overlap."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({NO_ALIAS: True})
            body()
    return builder.get()


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


class Read(enum.Enum):
    """What a step of an epilogue reads from memory."""

    #: A constant for each channel, shape (C,).
    CHANNELS = enum.auto()
    #: A number for each channel that the network computes, shape (1, 1, 1, C).
    CHANNELS_OF_IMAGE = enum.auto()
    #: A tensor of the output's shape.
    TENSOR = enum.auto()
    #: A tensor whose pixels stand in another order, or whose channels a table names.
    GATHERED = enum.auto()


@dataclasses.dataclass(frozen=True)
class EpilogueStep:
    """One operation of an epilogue.

    Attributes
    ----------
    kind : str
        ``bias``, ``residual``, ``relu``, ``clip``, or one of `OPERATIONS`.
    bounds : tuple of float
        Lower and upper bound of ``clip``.
    operands : tuple
        What it is applied to, in order. An int counts back through the values before the step: 1
        is the last one. A float is a number. At most one is a `Read`; a ``bias`` and a
        ``residual`` read theirs beside the value that is named here.
    stored : int
        Channels in memory of a tensor that is read by a table; 0 where none is.
    pixels : PixelOrder
        Where the pixels of a gathered tensor stand.
    """

    kind: str
    bounds: tuple[float, float] = (0.0, 0.0)
    operands: tuple[int | float | Read, ...] = (1,)
    stored: int = 0
    pixels: PixelOrder = AS_THEY_LIE

    @property
    def reads(self) -> Read | None:
        """What it reads from memory."""
        of_kind = {"bias": Read.CHANNELS, "residual": Read.TENSOR}.get(self.kind)
        return of_kind or next((o for o in self.operands if isinstance(o, Read)), None)


def epilogue_operands(
    epilogue: tuple[EpilogueStep, ...],
    shape: tuple[int, ...],
    first_bias: tuple[int, ...],
    dtype: str,
    summed: str = "",
) -> list[Any]:
    """Declare the parameters that an epilogue reads: ``None`` for a step that reads none.

    Where a tensor is read by a table, both are declared, and stand for the step as a pair. So do a
    tensor in int8 and what one of it stands for; these numbers are a parameter before the others.

    Parameters
    ----------
    epilogue : tuple of EpilogueStep
        The steps.
    shape : tuple of int
        Shape of the kernel's output, NHWC.
    first_bias : tuple of int
        Shape of a bias that comes first: sums start from it.
    dtype : str
        Of their elements, but for tensors that a step reads in int8.
    summed : str
        Of the sums that start from a bias, where it is another.
    """
    operands: list[Any] = []
    in_int8 = sum(step.kind == "add_int8" for step in epilogue)
    held_scales: Any = T.arg("held_scales", T.buffer((in_int8,), FLOAT)) if in_int8 else None
    for position, step in enumerate(epilogue):
        if step.reads is None:
            operands.append(None)
            continue
        extents = {
            Read.CHANNELS: shape[3:],
            Read.CHANNELS_OF_IMAGE: (1, 1, 1, shape[3]),
            Read.TENSOR: shape,
            Read.GATHERED: (
                shape[0],
                *step.pixels.in_memory(shape[1], shape[2], step.stored or shape[3]),
            ),
        }[step.reads]
        element = INT8 if step.kind == "add_int8" else dtype
        if position == 0 and step.kind == "bias":
            extents, element = first_bias, summed or dtype
        operand = T.arg(f"{step.kind}_{position}", T.buffer(extents, element))
        if step.reads is Read.GATHERED and step.stored:
            table = T.arg(f"channels_{position}", T.buffer(shape[3:], "int32"))
            operand = (operand, table)
        elif step.kind == "add_int8":
            place = sum(before.kind == "add_int8" for before in epilogue[:position])
            operand = (operand, held_scales[place])
        operands.append(operand)
    return operands


def apply_step(step: EpilogueStep, read: Any, values: Sequence[Any], at: tuple[Any, ...]) -> Any:
    """Write one step of an epilogue at NHWC index `at`, given the values before it."""
    in_memory: tuple[Any, ...] = {
        Read.CHANNELS: (at[3],),
        Read.CHANNELS_OF_IMAGE: (0, 0, 0, at[3]),
        Read.TENSOR: at,
        Read.GATHERED: at,
        None: (),
    }[step.reads]
    if step.reads is Read.GATHERED:
        channel = at[3]
        if step.stored:
            read, table = read
            channel = table[channel]
        channels = step.stored or int(read.shape[3]) // step.pixels.square**2
        in_memory = (at[0], *step.pixels.at(at[1], at[2], channel, channels))
    scales = []
    if step.kind == "add_int8":
        read, scale = read
        scales.append(scale)

    def operand(given: int | float | Read) -> Any:
        if isinstance(given, int):
            return values[-given]
        return number(given, values[-1]) if isinstance(given, float) else read[in_memory]

    operands = [operand(given) for given in step.operands]
    if step.kind in ("bias", "residual"):
        return operands[0] + read[in_memory]
    if step.kind == "relu":
        return tirx.max(operands[0], number(0, operands[0]))
    if step.kind == "clip":
        lower, upper = (number(bound, operands[0]) for bound in step.bounds)
        return tirx.min(tirx.max(operands[0], lower), upper)
    return OPERATIONS[step.kind](*operands, *scales)


def starting_bias(epilogue: tuple[EpilogueStep, ...]) -> bool:
    """Whether sums can start from a bias instead of from zero."""
    return bool(epilogue) and epilogue[0].kind == "bias"


def count_reads(epilogue: tuple[EpilogueStep, ...]) -> int:
    """Count how often one element of a kernel's output is written to read what was computed."""
    counts = [1]
    for step in epilogue:
        own = sum(counts[-given] for given in step.operands if isinstance(given, int))
        counts.append(own * WRITTEN_TIMES.get(step.kind, 1))
    return counts[-1]


def apply_steps(
    epilogue: tuple[EpilogueStep, ...], operands: list[Any], value: Any, at: tuple[Any, ...]
) -> Any:
    """Append a whole epilogue to a value at NHWC index `at`."""
    values = [value]
    for step, operand in zip(epilogue, operands, strict=True):
        values.append(apply_step(step, operand, values, at))
    return values[-1]
