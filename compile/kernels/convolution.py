"""The convolution kernel: rows of channels times weights, with all that follows in its registers.

One kernel form serves dense, grouped, pointwise and strided convolutions and linear layers. It
computes for each pixel ``p``, group ``q`` and output channel ``o`` of the group::

    accumulate[p, q, o] = sum over (kh, kw, k) of x[p at (kh, kw), read(q, k)] * w[q, kh, kw, k, o]
    out[p, write(q, o)] = epilogue(accumulate[p, q, o])

``read`` and ``write`` are where a channel shuffle went: the channel in memory behind channel ``k``
of group ``q``, and, where the next reader wants them so, that of output ``o``; else ``q * N + o``.
Output channels are padded to whole vectors in the weights, never in the activations.
"""

from __future__ import annotations

import contextlib
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import FLOAT, INT16, INT32
from shuffledeploy.compiler.kernels.blocks import (
    ACCUMULATE,
    FINISHED,
    OUTPUT,
    PARTIAL,
    POSITIONS,
    TAKEN,
    WEIGHT,
    apply_steps,
    axes,
    epilogue_operands,
    named,
    starting_bias,
    written,
)
from shuffledeploy.compiler.kernels.convolution_shape import (
    Convolution,
    bias_shape,
    output_type,
)
from shuffledeploy.compiler.kernels.int8_products import (
    FOUR,
    TWO,
    dot,
    dot_of_pairs,
    pair_of,
    word,
)
from shuffledeploy.compiler.kernels.int8_sums import at_channel, factors_of, scaled_sum
from shuffledeploy.compiler.kernels.operations import number
from shuffledeploy.compiler.kernels.sliding_window import place


def primitive_function(conv: Convolution) -> tirx.PrimFunc:
    """Write the kernel as an unscheduled TIR function.

    Returns
    -------
    tirx.PrimFunc
        Parameters: input, packed weight (of int8 as words, a scale of each output, and an
        offset where they are scaled at once), the
        epilogue's operands in order (a bias that comes first is packed too, later ones are
        ``(O,)``, residuals have the output's shape), the tables of channels that are read and
        written where there are such, output.
    """
    return written(lambda: _body(conv))


def _body(conv: Convolution) -> None:
    shape = output_type(conv)
    height, width, channels = conv.pixels.in_memory(conv.height, conv.width, conv.stored_channels)
    in_shape = (conv.planes, height, width, channels)
    if conv.channels_first:
        in_shape = (1, channels, height, width)
    x = T.arg("x", T.buffer(in_shape, conv.dtype))
    rows = conv.depth * conv.parts_of_word
    weights = (conv.groups, *conv.kernel, rows, conv.padded_outputs)
    weight = T.arg(WEIGHT, T.buffer(weights, _read_as(conv)))
    outputs = conv.groups * conv.group_outputs
    factors = factors_of(conv.sums, outputs) if conv.in_words else None
    summed = INT32 if conv.in_words else conv.dtype
    operands = epilogue_operands(conv.epilogue, shape, bias_shape(conv), conv.computed, summed)
    table = None if conv.run else T.arg("channels", T.buffer((conv.channels,), "int32"))
    positions = T.arg(POSITIONS, T.buffer((outputs,), "int32")) if conv.scattered else None
    out = T.arg("out", T.buffer(shape, conv.written or conv.computed))
    accumulate = _accumulate_blocks if conv.block else _accumulate
    total = accumulate(conv, x, weight, table, operands)
    _write(conv, total, factors, operands, positions, out)


def _plane(conv: Convolution, group: Any) -> tuple[Any, Any]:
    """Tell the plane of a group, and which of the plane's groups it is."""
    # Nothing is computed for the one plane of most layers: their code, and so their key, stays.
    if conv.planes == 1:
        return 0, group
    groups = conv.groups // conv.planes
    return tirx.floordiv(group, groups), tirx.floormod(group, groups)


def _channel(conv: Convolution, table: Any, group: Any, depth: Any) -> Any:
    if conv.reads_all:
        group = 0
    if table is not None:
        return table[group * conv.group_inputs + depth]
    if conv.run == conv.group_inputs:
        return group * conv.group_inputs + depth
    pitch = conv.channels // (conv.group_inputs // conv.run)
    return (
        tirx.floordiv(depth, conv.run) * pitch + group * conv.run + tirx.floormod(depth, conv.run)
    )


def _read_as(conv: Convolution) -> str:
    """Name the type of what a sum reads at once: numbers, words or pairs of int8."""
    if not conv.in_words:
        return conv.dtype
    return INT16 if conv.in_pairs else INT32


def _take(conv: Convolution, x: Any, table: Any) -> Any:
    """Write the block that finds what a sum reads: pixels of windows, channels in read order."""
    columns = conv.output_width
    rows = conv.depth * conv.parts_of_word
    extents = (conv.output_height * columns, conv.groups, *conv.kernel, rows)
    taken = named("window", T.sblock_alloc_buffer(extents, _read_as(conv)))
    with T.grid(*extents) as loops:
        with T.sblock(TAKEN):
            p, q, kh, kw, k = axes("SSSSS", "p q kh kw k", loops)
            plane, group = _plane(conv, q)
            channel = _channel(conv, table, group, _first_read(conv, k))
            row = place(conv, 0, conv.height, tirx.floordiv(p, columns), kh)
            column = place(conv, 1, conv.width, tirx.floormod(p, columns), kw)
            inside = (row.index, column.index, channel, conv.stored_channels)
            at = (plane, *conv.pixels.in_square(*inside))
            if conv.channels_first:
                at = (0, channel, row.index, column.index)
            value = x[at]
            if conv.in_words:
                value = pair_of(value) if conv.in_pairs else word(value)
            if conv.outside:
                value = row.or_else(column.or_else(value, _zeros(conv)), _zeros(conv))
            else:
                value = column.or_zero(value)
            T.buffer_store(taken, value, [p, q, kh, kw, k])
    return taken


def _zeros(conv: Convolution) -> int:
    """Give the word, or the pair, of int8 that stand for zero."""
    count = FOUR // conv.parts_of_word
    return int.from_bytes(bytes([conv.outside % 256] * count), "little", signed=True)


def _first_read(conv: Convolution, place: Any) -> Any:
    """Tell the first channel of a number, a word or a pair.

    The last word ends with the group, so that none reads on. Weights of channels that it shares
    with the word before are zero.
    """
    if not conv.in_words:
        return place
    parts = conv.parts_of_word
    if conv.group_inputs % FOUR == 0:
        return place * (FOUR // parts)
    if not conv.in_pairs:
        return tirx.min(place * FOUR, conv.group_inputs - FOUR)
    first = tirx.min(tirx.floordiv(place, parts) * FOUR, conv.group_inputs - FOUR)
    return first + tirx.floormod(place, parts) * TWO


def _accumulate(conv: Convolution, x: Any, weight: Any, table: Any, operands: list[Any]) -> Any:
    taken = _take(conv, x, table)
    columns = conv.output_width
    sums = (conv.output_height * columns, conv.groups, conv.padded_outputs)
    sum_type = INT32 if conv.in_words else conv.dtype
    total = named("total", T.sblock_alloc_buffer(sums, sum_type))
    with T.grid(*sums, *conv.kernel, conv.depth) as loops:
        with T.sblock(ACCUMULATE):
            p, q, o, kh, kw, k = axes("SSSRRR", "p q o kh kw k", loops)
            with T.init():
                zero = number(0, total[p, q, o])
                start = operands[0][q, o] if starting_bias(conv.epilogue) else zero
                T.buffer_store(total, start, [p, q, o])
            # A row lies outside as a whole or not at all: the condition stands before its loops.
            row = place(conv, 0, conv.height, tirx.floordiv(p, columns), kh)
            places = [k * conv.parts_of_word + part for part in range(conv.parts_of_word)]
            left = [taken[p, q, kh, kw, place] for place in places]
            right = [weight[q, kh, kw, place, o] for place in places]
            added = _added(conv, total[p, q, o], left, right)
            with contextlib.nullcontext() if conv.outside else row.guarded():
                T.buffer_store(total, added, [p, q, o])
    return total


def _added(conv: Convolution, total: Any, left: list[Any], right: list[Any]) -> Any:
    """Add the product of two numbers, or those of the int8 in two words, to a sum."""
    if conv.in_pairs:
        return dot_of_pairs(total, left, right)
    return dot(total, *left, *right) if conv.in_words else total + left[0] * right[0]


def _accumulate_blocks(
    conv: Convolution, x: Any, weight: Any, table: Any, operands: list[Any]
) -> Any:
    """Write sums of products in `dtype` over a few channels, and sums of these in float32."""
    taken, block = _take(conv, x, table), conv.block
    sums = (conv.output_height * conv.output_width, conv.groups, conv.padded_outputs)
    parts = (*sums, conv.group_inputs // block)
    partial = named("partial", T.sblock_alloc_buffer(parts, conv.dtype))
    total = named("total", T.sblock_alloc_buffer(sums, FLOAT))
    with T.grid(*parts, block) as loops:
        with T.sblock(PARTIAL):
            p, q, o, b, k = axes("SSSSR", "p q o b k", loops)
            with T.init():
                T.buffer_store(partial, tirx.FloatImm(conv.dtype, 0), [p, q, o, b])
            channel = b * block + k
            product = taken[p, q, 0, 0, channel] * weight[q, 0, 0, channel, o]
            T.buffer_store(partial, partial[p, q, o, b] + product, [p, q, o, b])
    with T.grid(*parts) as loops:
        with T.sblock(ACCUMULATE):
            p, q, o, b = axes("SSSR", "p q o b", loops)
            with T.init():
                biased = starting_bias(conv.epilogue)
                start = tirx.Cast(FLOAT, operands[0][q, o]) if biased else T.float32(0)
                T.buffer_store(total, start, [p, q, o])
            added = tirx.Cast(FLOAT, partial[p, q, o, b])
            T.buffer_store(total, total[p, q, o] + added, [p, q, o])
    return total


def _write(
    conv: Convolution, total: Any, factors: Any, operands: list[Any], positions: Any, out: Any
) -> None:
    columns = conv.output_width
    pixels = conv.output_height * columns
    after = 1 if starting_bias(conv.epilogue) else 0
    extents = (pixels, conv.groups, conv.group_outputs)
    finished = None
    if positions is not None:
        finished = named("finished", T.sblock_alloc_buffer(extents, str(out.dtype)))
    with T.grid(*extents) as loops:
        with T.sblock(OUTPUT if finished is None else FINISHED):
            p, q, o = axes("SSS", "p q o", loops)
            plane, group = _plane(conv, q)
            channel = group * conv.group_outputs + o
            at = (plane, tirx.floordiv(p, columns), tirx.floormod(p, columns), channel)
            value = tirx.Cast(conv.dtype, total[p, q, o]) if conv.block else total[p, q, o]
            if factors is not None:
                value = scaled_sum(conv.sums, value, *at_channel(factors, channel))
            value = apply_steps(conv.epilogue[after:], operands[after:], value, at)
            if finished is None:
                T.buffer_store(out, value, list(at))
            else:
                T.buffer_store(finished, value, [p, q, o])
    if finished is None:
        return
    with T.grid(*extents) as loops:
        with T.sblock(OUTPUT):
            p, q, o = axes("SSS", "p q o", loops)
            written = positions[q * conv.group_outputs + o]
            at = (0, tirx.floordiv(p, columns), tirx.floormod(p, columns), written)
            T.buffer_store(out, finished[p, q, o], list(at))
