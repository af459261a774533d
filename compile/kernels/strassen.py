"""Products of large matrices with seven multiplications in place of eight, after Strassen.

A pointwise layer is a product of pixels by channels and weights. Both are cut in two each way, and
sums of the quarters are multiplied (Winograd's form of Strassen's way, which adds the least)::

    before    C = A B                     A: pixels x inputs, B: inputs x outputs
    after     L = seven sums of A11 A12 A21 A22             `sum_quarters`
              P[t] = L[t] R[t], t = 1..7                    a pointwise convolution of 7 planes
              C11 C12 C21 C22 = sums of P, and the epilogue `join_quarters`

``R``, seven sums of the quarters of ``B``, is computed when the network is compiled. One level
rounds somewhat more than a product in full: sums of quarters are larger than the quarters, and are
taken from each other at the end.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np
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
)
from shuffledeploy.compiler.kernels.tiling import divisors

PRODUCTS = 7
# Vectors that one step adds up.
VECTORS_IN_STEP = 4

Quarter = TypeVar("Quarter", Array, Any)


@dataclasses.dataclass(frozen=True)
class Strassen:
    """What the sums before and after the products of one layer have to know.

    Attributes
    ----------
    height, width : int
        Of input and output.
    inputs, outputs : int
        Channels, even numbers.
    lanes : int
        Floats in a vector of the target.
    epilogue : tuple of EpilogueStep
        What follows, in order.
    """

    height: int
    width: int
    inputs: int
    outputs: int
    lanes: int
    epilogue: tuple[EpilogueStep, ...]

    @property
    def pixels(self) -> int:
        """Pixels of the image, row after row."""
        return self.height * self.width

    @property
    def half(self) -> int:
        """Pixels of a half; the second has one less where they are odd."""
        return -(-self.pixels // 2)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of the layer's output, NHWC."""
        return 1, self.height, self.width, self.outputs

    def step(self, channels: int) -> int:
        """Choose how many of a half's channels one step adds up."""
        half = channels // 2
        return max(divisors(half, VECTORS_IN_STEP * self.lanes))


def left_sums(a11: Quarter, a12: Quarter, a21: Quarter, a22: Quarter) -> list[Quarter]:
    """List the left factors of the seven products."""
    s1 = a21 + a22
    s2 = s1 - a11
    return [a11, a12, a12 - s2, a22, s1, s2, a11 - a21]


def right_sums(b11: Quarter, b12: Quarter, b21: Quarter, b22: Quarter) -> list[Quarter]:
    """List the right factors of the seven products."""
    t1 = b12 - b11
    t2 = b22 - t1
    return [b11, b21, b22, t2 - b21, t1, t2, b22 - b12]


def quarters_of(products: list[Quarter]) -> list[Quarter]:
    """Add up the quarters of the product: upper left and right, lower left and right."""
    p1, p2, p3, p4, p5, p6, p7 = products
    u2 = p1 + p6
    u3 = u2 + p7
    return [p1 + p2, u2 + p5 + p3, u3 - p4, u3 + p5]


def sum_weights(weight: Array) -> Array:
    """Make the weights of the seven products, as a pointwise convolution of seven groups has them.

    Parameters
    ----------
    weight : Array
        ``(1, 1, K, O)``, both even.

    Returns
    -------
    Array
        ``(1, 1, K / 2, 7 * O / 2)``, float32; added up in float64.
    """
    upper, lower = np.split(weight[0, 0].astype(np.float64), 2, axis=0)
    quarters = (*np.split(upper, 2, axis=1), *np.split(lower, 2, axis=1))
    return np.concatenate(right_sums(*quarters), axis=1)[None, None].astype(np.float32)


def sum_quarters(layer: Strassen) -> tirx.PrimFunc:
    """Write the kernel that takes x ``(1, H, W, K)`` to L ``(7, 1, half of the pixels, K / 2)``."""
    step, half = layer.step(layer.inputs), layer.inputs // 2
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({NO_ALIAS: True})
            x = T.arg("x", T.buffer((1, layer.height, layer.width, layer.inputs), FLOAT))
            out = T.arg("out", T.buffer((PRODUCTS, 1, layer.half, half), FLOAT))
            with T.sblock("sums"), T.grid(layer.half, half // step) as (p, c):
                with T.vectorized(0, step) as lane:
                    quarters = [
                        _at(layer, x, p, row, column * half + c * step + lane)
                        for row in range(2)
                        for column in range(2)
                    ]
                    for number, total in enumerate(left_sums(*quarters)):
                        T.buffer_store(out, total, [number, 0, p, c * step + lane])
    return builder.get()


def _at(layer: Strassen, x: Any, pixel: Any, lower: int, channel: Any) -> Any:
    """Read a pixel of a half; zero beyond the last, where pixels are odd."""
    place = pixel + lower * layer.half
    if lower and layer.pixels % 2:
        last = tirx.min(place, layer.pixels - 1)
        value = x[0, tirx.floordiv(last, layer.width), tirx.floormod(last, layer.width), channel]
        return tirx.Select(place < layer.pixels, value, T.float32(0))
    return x[0, tirx.floordiv(place, layer.width), tirx.floormod(place, layer.width), channel]


def join_quarters(layer: Strassen) -> tirx.PrimFunc:
    """Write the kernel that takes P ``(7, 1, half of the pixels, O / 2)`` to the layer's output.

    Parameters of the function: P, the epilogue's operands in order, output.
    """
    step, half = layer.step(layer.outputs), layer.outputs // 2
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({NO_ALIAS: True})
            products = T.arg("products", T.buffer((PRODUCTS, 1, layer.half, half), FLOAT))
            operands = epilogue_operands(
                layer.epilogue, layer.output_shape, (layer.outputs,), FLOAT
            )
            out = T.arg("out", T.buffer(layer.output_shape, FLOAT))
            with T.sblock("join"), T.grid(layer.half, half // step) as (p, c):

                def write(number: int, value: Any, lane: Any) -> None:
                    place = p + number // 2 * layer.half
                    row, column = (
                        tirx.floordiv(place, layer.width), tirx.floormod(place, layer.width),
                    )  # fmt: skip
                    at = (0, row, column, number % 2 * half + c * step + lane)
                    total = value
                    if count_reads(layer.epilogue) > 1:
                        total = tirx.Var("total", FLOAT)
                    finished = apply_steps(layer.epilogue, operands, total, at)
                    if total is not value:
                        finished = tirx.Let(total, value, finished)
                    T.buffer_store(out, finished, list(at))

                def write_row(numbers: tuple[int, int]) -> None:
                    for number in numbers:
                        with T.vectorized(0, step) as lane:
                            parts = [products[t, 0, p, c * step + lane] for t in range(PRODUCTS)]
                            write(number, quarters_of(parts)[number], lane)

                write_row((0, 1))
                if layer.pixels % 2:
                    with T.If(p + layer.half < layer.pixels), T.Then():
                        write_row((2, 3))
                else:
                    write_row((2, 3))
    return builder.get()
