"""Kernels that read or write int8: scales, the epilogue in the output's steps, weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from shuffledeploy.compiler.ir.graph import Array, constant_of
from shuffledeploy.compiler.ir.memory_layout import INT8, Held
from shuffledeploy.compiler.kernels.blocks import EpilogueStep, Read, starting_bias
from shuffledeploy.compiler.kernels.convolution_shape import Convolution
from shuffledeploy.compiler.kernels.int8_products import FOUR
from shuffledeploy.compiler.kernels.int8_sums import (
    CENTRE,
    CENTRE_BITS,
    REACH,
    READ_AT,
    SHORT_REACH,
    Int8Sums,
)
from shuffledeploy.compiler.kernels.int8_weights import MOST, rounded, scales_of
from shuffledeploy.compiler.passes.graph.sites import Site

# What one of a sum stands for at most if it is scaled at once: half a step of output is then lost
# in a sixteenth of a step, should a core round a product before it adds.
LARGEST_AT_ONCE = 1 / 16


@dataclasses.dataclass(frozen=True)
class Int8Epilogue:
    """What follows a kernel's sums where tensors are held in int8.

    Attributes
    ----------
    steps : tuple of EpilogueStep
        The last gives an int8 where the output is held so.
    unit : float
        What one stands for in the numbers that the steps are applied to.
    start : float
        What those numbers have to hold beside the sums, in this unit: the zeros of the residual
        and of the output.
    added : float or None
        How far what the steps add can take those numbers; ``None`` where steps do other things, or
        the output is not held in int8.
    held_scales : tuple of float
        What one of each residual in int8 stands for, in the same unit: a parameter of the kernel.
    written : str
        Type of the output, ``""`` where it is that of the steps' numbers.
    """

    steps: tuple[EpilogueStep, ...]
    unit: float
    start: float
    added: float | None
    held_scales: tuple[float, ...]
    written: str

    @property
    def arguments(self) -> list[Any]:
        """What the steps read before all others."""
        scales = self.held_scales
        return [relax.const(np.array(scales, np.float32))] if scales else []

    def read_from(self, sums: Int8Sums, *, short: bool) -> tuple[EpilogueStep, ...]:
        """Give the steps for sums that are read so; `short` where their numbers reach no further.

        Sums that are scaled at once come rounded.
        """
        if self.added is None:
            return self.steps
        *others, rounds, narrows = self.steps
        if not sums.at_once:
            others.append(rounds)
        kind = "narrowed_short" if short else narrows.kind
        return (*others, dataclasses.replace(narrows, kind=kind))


def int8_epilogue(site: Site, *, scaled: bool) -> Int8Epilogue:
    """Write a chain's steps for tensors that are held in int8, read or written.

    Parameters
    ----------
    site : Site
        The chain; where it holds nothing in int8, its steps stay as they are.
    scaled : bool
        Whether the kernel scales its sums anyway, and adds to them, so that they may come in steps
        of the output.
    """
    held, steps = site.chain.held, site.chain.steps
    places = added_tensors(steps)
    tensors = [None if place is None else site.chain.operands[place] for place in places]
    residuals = [site.held.get(t) if isinstance(t, relax.Var) else None for t in tensors]
    folds = scaled and held is not None and _is_sum(steps, residuals)
    unit = held.scale if folds and held is not None else 1.0
    written, start, added = [], 0.0, 0.0
    held_scales: list[float] = []
    for step, residual in zip(steps, residuals, strict=True):
        if residual is not None:
            factor = residual.scale / unit
            offset = -(residual.zero + READ_AT) * factor
            start += offset if folds else 0.0
            added += (READ_AT + MOST) * factor
            held_scales.append(factor)
            operands_of = (step.operands[0], 0.0 if folds else offset, Read.TENSOR)
            written.append(dataclasses.replace(step, kind="add_int8", operands=operands_of))
        else:
            written.append(step)
    if held is None:
        return Int8Epilogue(tuple(written), unit, start, None, tuple(held_scales), "")
    bounds = (float(-MOST - 1), float(MOST))
    if written and written[-1].kind in ("relu", "clip") and written[-1].operands == (1,):
        last = written.pop()
        ends = (0.0, math.inf) if last.kind == "relu" else last.bounds
        least, most = (end / held.scale + held.zero for end in ends)
        bounds = (max(bounds[0], least), min(bounds[1], most))
    if folds:
        start += held.zero
    else:
        written.append(EpilogueStep("multiply", operands=(1, 1.0 / held.scale)))
    zero = 0 if folds else held.zero
    written.append(EpilogueStep("add", operands=(1, CENTRE + zero)))
    written.append(EpilogueStep("narrowed", operands=(1, *bounds)))
    scales = tuple(held_scales)
    return Int8Epilogue(tuple(written), unit, start, added if folds else None, scales, INT8)


def _is_sum(steps: tuple[EpilogueStep, ...], residuals: Sequence[Held | None]) -> bool:
    """Whether steps only add tensors in int8, and cut off at last: that goes in any unit."""
    first = 1 if starting_bias(steps) else 0
    last = len(steps) - 1
    return all(
        residuals[place] is not None or (step.kind in ("relu", "clip") and place == last)
        for place, step in enumerate(steps)
        if place >= first
    )


def added_tensors(steps: Sequence[EpilogueStep]) -> list[int | None]:
    """Tell which operand each step adds as a tensor, and so may read in int8; ``None`` if none."""
    places: list[int | None] = []
    operand = 0
    for step in steps:
        adds = step.kind == "residual" and step.reads is Read.TENSOR
        places.append(operand if adds else None)
        # What is gathered has a table beside it.
        operand += {None: 0, Read.GATHERED: 2}.get(step.reads, 1)
    return places


def reads_words(conv: Convolution) -> bool:
    """Whether a convolution can read int8 in words: each group's channels lie together."""
    apart = conv.channels_first or conv.planes > 1 or conv.run != conv.group_inputs
    return not apart and conv.group_inputs >= FOUR


@dataclasses.dataclass(frozen=True)
class Int8Layer:
    """Weights in int8, and how the sums of their products become outputs.

    Attributes
    ----------
    whole : Array
        Weights, int8; outputs on the last axis.
    starts : Array
        What the sums start from, int32, of each output: the bias, and what the zeros of the input,
        of the residual and of the output add.
    factors : tuple of Array
        Of each output what one of its sum stands for, float32, and what is added to it where that
        is done at once.
    sums : Int8Sums
        How sums are read.
    steps : tuple of EpilogueStep
        What follows.
    """

    whole: Array
    starts: Array
    factors: tuple[Array, ...]
    sums: Int8Sums
    steps: tuple[EpilogueStep, ...]

    @property
    def arguments(self) -> list[Any]:
        """The factors, as arguments of a kernel."""
        return [relax.const(factor) for factor in self.factors]

    def of_outputs(self, places: Sequence[int]) -> Int8Layer:
        """Give the layer of some of its outputs, in an order."""
        factors = tuple(factor[places] for factor in self.factors)
        whole, starts = self.whole[..., places], self.starts[places]
        return dataclasses.replace(self, whole=whole, starts=starts, factors=factors)


def int8_layer(weight: Array, bias: Array, held: Held, ends: Int8Epilogue) -> Int8Layer:
    """Round a layer's weights, and choose the fewest steps that make outputs of its sums.

    What sums can reach is known, since weights are and no int8 is beyond -128 and 127.

    Parameters
    ----------
    weight, bias : Array
        float32, outputs on the last axis; and what the sums start from, of each output.
    held : Held
        How the input is held.
    ends : Int8Epilogue
        What follows the sums.
    """
    scales = scales_of(weight)
    whole = rounded(weight, scales)
    factors = scales * np.float32(held.scale / ends.unit)
    exact = (bias.astype(np.float64) / ends.unit + ends.start) / factors
    ones = whole.reshape(-1, whole.shape[-1]).astype(np.int64)
    zeros = ones.sum(axis=0) * held.zero
    # Half a step of output more, which offsets may round off.
    reach = _reach(ones, exact - zeros) + 0.5 / factors
    sums = Int8Sums(centred=bool(reach.max() < REACH - 1))
    offsets: tuple[Array, ...] = ()
    if sums.centred and ends.added == 0 and factors.max() <= LARGEST_AT_ONCE:
        # An offset is a whole number; what that takes from it the sum starts from.
        offset = CENTRE - CENTRE * factors.astype(np.float64)
        offsets = (np.rint(offset).astype(np.float32),)
        exact += (offset - offsets[0]) / factors
        sums = dataclasses.replace(sums, at_once=True)
    short = ends.added is not None and (reach * factors).max() + ends.added + 1 < SHORT_REACH
    limits = np.iinfo(np.int32)
    whole_starts = np.rint(exact) - zeros + (CENTRE_BITS if sums.centred else 0)
    starts = np.clip(whole_starts, limits.min, limits.max).astype(np.int32)
    steps = ends.read_from(sums, short=bool(short))
    return Int8Layer(whole, starts, (factors, *offsets), sums, steps)


def starting_numbers(site: Site, outputs: int) -> Array:
    """Give the bias that a chain of a convolution begins with, of each output.

    `compute_in_int8` adds one to each convolution that reads int8.
    """
    bias = constant_of(site.chain.operands[0])
    assert bias is not None and starting_bias(site.chain.steps)
    return np.broadcast_to(bias.reshape(-1), (outputs,))


def _reach(ones: Array, starts: Array) -> Array:
    """Tell how far from zero each output's sum can come, whatever int8 its input holds."""
    most, least = MOST, -MOST - 1
    above = np.where(ones > 0, ones * most, ones * least).sum(axis=0) + starts
    below = np.where(ones > 0, ones * least, ones * most).sum(axis=0) + starts
    return np.maximum(np.abs(above), np.abs(below))
