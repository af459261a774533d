"""Convolutions of 3x3 and 5x5 windows with fewer multiplications, after Winograd.

A tile of ``m x m`` outputs needs ``n x n`` inputs, ``n = m + r - 1``. Both image and weights are
transformed to ``n x n`` numbers a tile, each of which is then a product of rows and weights of its
own, without a window (Lavin and Gray, arXiv 1509.09308)::

    before    y = conv_r(x, W)
    after     V = B^T d B of each tile d of x       `transform_input`
              M[t] = V[t] U[t] for n * n numbers t  a pointwise convolution of n * n planes
              y = A^T M A of each tile              `transform_output`, with the epilogue

With ``n = 6`` a 3x3 layer does 36 multiplications for 16 outputs in place of 144, with ``n = 8`` a
5x5 layer 64 for 16 in place of 400. ``U = G w G^T`` is computed when the network is compiled.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.ir.tvm_edges import NO_ALIAS
from shuffledeploy.compiler.kernels.blocks import (
    EpilogueStep,
    apply_steps,
    count_reads,
    epilogue_operands,
    named,
)
from shuffledeploy.compiler.kernels.pixel_order import AS_THEY_LIE, PixelOrder
from shuffledeploy.compiler.kernels.sliding_window import place
from shuffledeploy.compiler.kernels.winograd_matrices import STEP, matrices, tile_of


@dataclasses.dataclass(frozen=True)
class Winograd:
    """What the two transforms of one layer have to know; activations are NHWC with N = 1.

    Attributes
    ----------
    height, width : int
        Of the input.
    inputs, outputs : int
        Channels of the layer, of all groups.
    window : int
        Height and width of its window, 3 or 5.
    padding : tuple of int
        Top, left, bottom, right.
    lanes : int
        Floats in a vector of the target.
    epilogue : tuple of EpilogueStep
        What follows, in order.
    dtype : str
        Of input and output. What is between is float32: differences of half lose its digits.
    pixels : PixelOrder
        Where the input's pixels stand in memory.
    """

    height: int
    width: int
    inputs: int
    outputs: int
    window: int
    padding: tuple[int, int, int, int]
    lanes: int
    epilogue: tuple[EpilogueStep, ...]
    dtype: str = FLOAT
    pixels: PixelOrder = AS_THEY_LIE

    @property
    def tile(self) -> int:
        """Extent of an input tile (n)."""
        return tile_of(self.window)

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of an input tile."""
        return self.tile, self.tile

    @property
    def stride(self) -> tuple[int, int]:
        """From one tile to the next."""
        return STEP, STEP

    @property
    def dilation(self) -> tuple[int, int]:
        """Tiles are dense."""
        return 1, 1

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of the layer's output, NHWC."""
        top, left, bottom, right = self.padding
        tall, wide = self.height + top + bottom, self.width + left + right
        return 1, tall - self.window + 1, wide - self.window + 1, self.outputs

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        _, height, width, _ = self.output_shape
        return -(-height // STEP), -(-width // STEP)


Element = tuple[int, int]


def transform_input(layer: Winograd) -> tirx.PrimFunc:
    """Write the kernel that takes x ``(1, H, W, C)`` to V ``(n * n, rows, columns, C)``."""
    rows, columns = layer.tiles
    run = _run(layer.inputs, layer.lanes)
    _, _, b = matrices(layer.window)
    padded = dataclasses.replace(layer, padding=_covering(layer))
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({NO_ALIAS: True})
            image = layer.pixels.in_memory(layer.height, layer.width, layer.inputs)
            x = T.arg("x", T.buffer((1, *image), layer.dtype))
            shape = (layer.tile**2, rows, columns, layer.inputs)
            out = T.arg("out", T.buffer(shape, "float32"))
            scratch = _scratch(layer.tile, layer.tile, run)
            with T.grid(rows, columns, layer.inputs // run) as (i, j, c):

                def read(element: Element, lane: Any) -> Any:
                    row = place(padded, 0, layer.height, i, element[0])
                    column = place(padded, 1, layer.width, j, element[1])
                    inside = (row.index, column.index, c * run + lane, layer.inputs)
                    value = _cast(FLOAT, x[(0, *layer.pixels.in_square(*inside))])
                    return row.or_zero(column.or_zero(value))

                def write(element: Element, lane: Any, value: Any) -> None:
                    number = element[0] * layer.tile + element[1]
                    T.buffer_store(out, value, [number, i, j, c * run + lane])

                _both_ways(b, read, write, scratch, run)
    return builder.get()


def transform_output(layer: Winograd) -> tirx.PrimFunc:
    """Write the kernel that takes M ``(n * n, rows, columns, O)`` to the layer's output.

    Parameters of the function: M, the epilogue's operands in order, output.
    """
    rows, columns = layer.tiles
    _, height, width, outputs = layer.output_shape
    run = _run(outputs, layer.lanes)
    a, _, _ = matrices(layer.window)
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({NO_ALIAS: True})
            products = (layer.tile**2, rows, columns, outputs)
            m = T.arg("m", T.buffer(products, "float32"))
            operands = epilogue_operands(
                layer.epilogue, layer.output_shape, (outputs,), layer.dtype
            )
            out = T.arg("out", T.buffer(layer.output_shape, layer.dtype))
            scratch = _scratch(layer.tile, STEP, run)
            with T.grid(rows, columns, outputs // run) as (i, j, c):

                def read(element: Element, lane: Any) -> Any:
                    number = element[0] * layer.tile + element[1]
                    return m[number, i, j, c * run + lane]

                def write(element: Element, lane: Any, value: Any) -> None:
                    row, column = i * STEP + element[0], j * STEP + element[1]
                    at, value = (0, row, column, c * run + lane), _cast(layer.dtype, value)
                    if count_reads(layer.epilogue) == 1:
                        finished = apply_steps(layer.epilogue, operands, value, at)
                    else:
                        total = tirx.Var("total", layer.dtype)
                        finished = apply_steps(layer.epilogue, operands, total, at)
                        finished = tirx.Let(total, value, finished)
                    T.buffer_store(out, finished, list(at))

                def inside(element: Element) -> Any:
                    row, column = i * STEP + element[0], j * STEP + element[1]
                    return tirx.And(row < height, column < width)

                cut = height % STEP or width % STEP
                _both_ways(a, read, write, scratch, run, inside if cut else None)
    return builder.get()


def _cast(dtype: str, value: Any) -> Any:
    """Write a value as it is in another type, where it has another."""
    return value if str(value.ty.dtype) == dtype else tirx.Cast(dtype, value)


def _scratch(tile: int, height: int, run: int) -> tuple[Any, Any]:
    """Declare a column of a tile and its half transformed numbers, of one vector's channels."""
    column = named("column", T.sblock_alloc_buffer((tile, run), scope="local"))
    half = named("half", T.sblock_alloc_buffer((height, tile, run), scope="local"))
    return column, half


def _both_ways(
    matrix: Array, read: Any, write: Any, scratch: tuple[Any, Any], run: int, inside: Any = None
) -> None:
    """Write ``P d P^T`` of one tile, for ``run`` channels at once: columns first, then rows.

    Elements for which `inside` does not hold are not written.
    """
    column, half = scratch
    height, size = matrix.shape
    for b in range(size):
        for a in range(size):
            with T.vectorized(0, run) as lane:
                T.buffer_store(column, read((a, b), lane), [a, lane])
        for u in range(height):
            with T.vectorized(0, run) as lane:
                terms = [(matrix[u, a], column[a, lane]) for a in range(size)]
                T.buffer_store(half, _combination(terms), [u, b, lane])
    for u in range(height):
        for v in range(height):
            with contextlib.ExitStack() as around:
                if inside is not None and (u or v):
                    around.enter_context(T.If(inside((u, v))))
                    around.enter_context(T.Then())
                lane = around.enter_context(T.vectorized(0, run))
                terms = [(matrix[v, b], half[u, b, lane]) for b in range(size)]
                write((u, v), lane, _combination(terms))


def _combination(terms: Sequence[tuple[float, Any]]) -> Any:
    """Write a sum of multiples; what is not multiplied first, the rest in fused steps."""
    wanted = sorted((t for t in terms if t[0]), key=lambda term: (abs(term[0]) != 1, term[0] < 0))
    (factor, total), *others = wanted
    if factor != 1:
        total = total * T.float32(factor)
    for factor, value in others:
        if factor == 1:
            total = total + value
        elif factor == -1:
            total = total - value
        else:
            total = total + value * T.float32(factor)
    return total


def _covering(layer: Winograd) -> tuple[int, int, int, int]:
    """Widen a padding so that whole tiles cover all outputs."""
    top, left, _, _ = layer.padding
    rows, columns = layer.tiles
    bottom = (rows - 1) * STEP + layer.tile - top - layer.height
    right = (columns - 1) * STEP + layer.tile - left - layer.width
    return top, left, max(bottom, 0), max(right, 0)


def _run(channels: int, lanes: int) -> int:
    """Choose the channels of one vector: as many as divide them all."""
    return max(d for d in range(1, lanes + 1) if channels % d == 0)
