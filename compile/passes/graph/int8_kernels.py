"""Kernels that read or write int8: scales, the epilogue in the output's steps, weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax

from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import INT8, Held
from shuffledeploy.compiler.kernels.blocks import EpilogueStep, Read, starting_bias
from shuffledeploy.compiler.kernels.convolution_shape import Convolution
from shuffledeploy.compiler.kernels.int8_products import FOUR
from shuffledeploy.compiler.kernels.int8_weights import MOST, pack_words, rounded, scales_of
from shuffledeploy.compiler.kernels.packing import pack_bias, pack_weight
from shuffledeploy.compiler.passes.graph.sites import Site


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
    written : str
        Type of the output, ``""`` where it is that of the steps' numbers.
    """

    steps: tuple[EpilogueStep, ...]
    unit: float
    start: float
    written: str


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
    written, start = [], 0.0
    for step, residual in zip(steps, residuals, strict=True):
        if residual is not None:
            factor = residual.scale / unit
            offset = -residual.zero * factor
            start += offset if folds else 0.0
            operands_of = (step.operands[0], factor, 0.0 if folds else offset, Read.TENSOR)
            written.append(dataclasses.replace(step, kind="add_int8", operands=operands_of))
        else:
            written.append(step)
    if held is None:
        return Int8Epilogue(tuple(written), unit, start, "")
    low, high = (-MOST, MOST) if held.zero == 0 else (-MOST - 1, MOST)
    bounds = (float(low), float(high))
    if written and written[-1].kind in ("relu", "clip") and written[-1].operands == (1,):
        last = written.pop()
        ends = (0.0, math.inf) if last.kind == "relu" else last.bounds
        least, most = (end / held.scale + held.zero for end in ends)
        bounds = (max(bounds[0], least), min(bounds[1], most))
    if folds:
        start += held.zero
    else:
        written.append(EpilogueStep("multiply", operands=(1, 1.0 / held.scale)))
        if held.zero:
            written.append(EpilogueStep("add", operands=(1, float(held.zero))))
    written.append(EpilogueStep("quantise", operands=(1, *bounds)))
    return Int8Epilogue(tuple(written), unit, start, INT8)


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


def packed_words(
    conv: Convolution, weight: Array, held: Held, ends: Int8Epilogue
) -> tuple[list[Any], Callable[[Array], Array]]:
    """Lay out the weights of a convolution that reads words.

    Parameters
    ----------
    conv : Convolution
        The kernel.
    weight : Array
        float32, HWIO.
    held : Held
        How the input is held.
    ends : Int8Epilogue
        What follows the sums.

    Returns
    -------
    tuple
        The kernel's arguments behind its input; and what lays out its starting bias.
    """
    scales = scales_of(weight)
    whole = rounded(weight, scales)
    words = pack_words(pack_weight(whole, conv), conv)
    arguments = [relax.const(words), relax.const(scales * np.float32(held.scale / ends.unit))]
    starts = _starts(whole, scales, held, ends)
    return arguments, lambda bias: pack_bias(starts(bias), conv)


def packed_taps(
    weight: Array, held: Held, ends: Int8Epilogue
) -> tuple[list[Any], Callable[[Array], Array]]:
    """Lay out the weights ``(kh, kw, C)`` of a depthwise convolution; as :func:`packed_words`."""
    scales = scales_of(weight)
    whole = rounded(weight, scales)
    arguments = [
        relax.const(np.ascontiguousarray(whole)),
        relax.const(scales * np.float32(held.scale / ends.unit)),
    ]
    return arguments, _starts(whole, scales, held, ends)


def _starts(
    whole: Array, scales: Array, held: Held, ends: Int8Epilogue
) -> Callable[[Array], Array]:
    """Give what makes of a bias the int32 that sums start from.

    They hold what the zeros of the input, the residual and the output add to each sum.
    """
    ones = whole.reshape(-1, whole.shape[-1]).sum(axis=0, dtype=np.int64)
    limits = np.iinfo(np.int32)

    def starts(bias: Array) -> Array:
        steps = scales.astype(np.float64) * held.scale
        start = np.rint(bias / steps + ends.start * ends.unit / steps) - ones * held.zero
        return np.clip(start, limits.min // 2, limits.max // 2).astype(np.int32)

    return starts
