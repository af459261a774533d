"""Pixels share vectors for outputs beside whole ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import tvm
from stages import (
    HOST,
    assert_same_bits,
    avx512,
    draw,
    imported,
    lowered,
    lowered_for,
    seeded,
    with_schedules,
)
from torch import nn
from torch.nn import functional
from tvm import tirx
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.attributes import LANES, SHARED
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.tir.masked_vectors import has_masks
from shuffledeploy.compiler.passes.tir.shared_vectors import is_shared, share_vectors

AMD, INTEL = Core(16, 32, shuffles_beside=True), Core(16, 32)
AVX2, ARM = Core(8, 16), Core(4, 32)
WAYS = [0, 1]


class _Narrow(nn.Module):
    """Pointwise layers of 20, 40, 36, 8 and 30 outputs a group; rows of 7 fill no tile of 4.

    And a window over the image, of 12 outputs, whose columns are no neighbours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 48, 3, padding=1)
        self.twenty, self.forty = nn.Conv2d(48, 60, 1, groups=3), nn.Conv2d(60, 120, 1, groups=3)
        self.others = nn.Conv2d(48, 72, 1, groups=2)
        self.ten, self.after = nn.Conv2d(120, 30, 1, groups=3), nn.Conv2d(30, 40, 1)
        self.window, self.long = nn.Conv2d(3, 12, 3, (1, 2), 1), nn.Conv2d(48, 140, 1, groups=2)
        self.odd, self.eight = nn.Conv2d(48, 60, 1, groups=2), nn.Conv2d(48, 24, 1, groups=3)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = torch.relu(self.first(image))
        forty = self.forty(torch.relu(self.twenty(x)))
        return [
            torch.relu(forty + forty.roll(1, 3)), functional.relu6(self.others(x)),
            self.after(self.ten(forty)), self.odd(x), self.eight(x),
            torch.relu(self.window(image)), self.long(x),
        ]  # fmt: skip


def _scheduled(way: int, core: Core = AMD, smallest: bool = False) -> Any:
    """Schedule with the default (or smallest) numbers but for whether vectors are shared."""

    def choose(options: Sequence[int], default: int) -> int:
        if list(options) == WAYS:
            return way
        return min(options) if smallest else default

    def schedule(function: Any, _: Core) -> Any:
        state = Schedule(tvm.IRModule({"main": function}))
        if found := forms(function, core):
            found[0](state, choose)
        return state.mod["main"]

    return schedule


def _module(*image: int, core: Core = AMD) -> tvm.IRModule:
    return lowered(imported(seeded(_Narrow()), 1, 3, *(image or (5, 7))).module, core)


def _offers(name: str, core: Core) -> list[int]:
    """Give the default of what a kernel's first form asks of sharing; nothing where it does not."""
    asked: list[int] = []

    def choose(options: Sequence[int], default: int) -> int:
        if list(options) == WAYS:
            asked.append(default)
        return default

    function = kernel_functions(_module(core=core))[name]
    forms(function, core)[0](Schedule(tvm.IRModule({"main": function})), choose)
    return asked


@pytest.mark.parametrize(
    ("name", "amd", "intel", "avx2"),
    [
        (
            "conv1x1_g3_48x60_5x7",
            [1],
            [1],
            [1],
        ),  # 20 outputs: a quarter of a vector, half of AVX2's
        ("conv1x1_g3_60x120_5x7", [1], [0], []),  # 40: half of one, and five of AVX2's
        ("conv1x1_g2_48x72_5x7", [1], [1], [1]),  # 36
        ("conv1x1_g3_48x24_5x7", [1], [0], []),  # 8: a vector for two pixels, and no other
        ("conv1x1_g3_120x30_5x7", [], [], [1]),  # 10: a quarter of AVX2's
        ("conv3x3_3x48_5x7", [], [], []),
        ("conv1x1_g2_48x140_5x7", [], [], []),  # 70, in vectors of four
        # 12: AVX2 blends any inputs, AVX-512 would have to shuffle neighbours.
        ("conv3x3s1_3x12_5x4", [], [], [1]),
    ],
)
def test_it_is_offered_where_it_saves_something(
    name: str, amd: list[int], intel: list[int], avx2: list[int]
) -> None:
    assert _offers(name, AMD) == amd
    assert _offers(name, INTEL) == intel
    assert _offers(name, AVX2) == avx2
    assert _offers(name, ARM) == []


@pytest.mark.parametrize(("core", "asking"), [(AMD, 5), (AVX2, 4)], ids=["avx512", "avx2"])
@pytest.mark.parametrize(
    ("image", "smallest"), [((5, 7), False), ((1, 2), False), ((1, 1), False), ((2, 3), True)]
)
def test_answers_are_the_same_to_the_bit(
    image: tuple[int, int], smallest: bool, core: Core, asking: int
) -> None:
    """Pixels that fill no vector, one vector alone, one pixel alone, one product at a time."""
    module = _module(*image, core=core)
    apart, shared = (
        with_schedules(module, core, _scheduled(way, core, smallest=smallest)) for way in WAYS
    )
    asks = [name for name, function in kernel_functions(shared).items() if is_shared(function)]
    assert len(asks) == asking
    if HOST.core.lanes >= core.lanes:
        assert_same_bits(apart, shared, draw(1, 3, *image).numpy())


def test_sums_of_several_pixels_stand_in_one_vector() -> None:
    function = _scheduled(1)(kernel_functions(_module())["conv1x1_g3_48x60_5x7"], AMD)
    plain = lowered_for(avx512(), function, "lower_tir")
    assert has_masks(plain)
    assert SHARED in plain.attrs
    before, after = plain.script(), share_vectors(plain).script()
    products = [line for line in before.splitlines() if "T.Broadcast(x_1[" in line]
    kept = [line for line in after.splitlines() if "T.Broadcast(x_1[" in line]
    added = [line for line in after.splitlines() if "T.Shuffle([inputs" in line]
    # Of two vectors for each of the pixels one is left, and one for four pixels.
    assert len(kept) == len(products) // 2
    assert len(kept) // 4 <= len(added) < len(kept) // 2


def _sums(pixels: int = 4, *, step: int = 1, start: Any = None, lanes: int = 16) -> tirx.PrimFunc:
    """Write a tile of 20 (12) outputs a pixel, each the sum of four products."""
    x, w, bias, out = (
        tirx.decl_buffer((500,), "float32", name) for name in ("x", "w", "bias", "out")
    )
    width, outputs = 2 * lanes, lanes + 4
    tile = tirx.decl_buffer((width * pixels,), "float32", "tile")

    def whole(base: int) -> Any:
        return tirx.Ramp(tirx.IntImm("int32", base), 1, lanes)

    vectors = [(pixel, half) for pixel in range(pixels) for half in (0, lanes)]
    body: list[Any] = [tirx.AllocBuffer(tile)]
    for pixel, half in vectors:
        value = start(pixel) if start else tirx.BufferLoad(bias, [whole(half)])
        body.append(tirx.BufferStore(tile, value, [whole(width * pixel + half)]))
    for k in range(4):
        for pixel, half in vectors:
            at, image = whole(width * pixel + half), tirx.BufferLoad(x, [50 * pixel + step * k])
            product = tirx.Broadcast(image, lanes) * tirx.BufferLoad(w, [whole(width * k + half)])
            body.append(tirx.BufferStore(tile, tirx.BufferLoad(tile, [at]) + product, [at]))
    for pixel in range(pixels):
        first, beside = whole(width * pixel), tirx.IntImm("int32", width * pixel + lanes)
        body += [
            tirx.BufferStore(out, tirx.BufferLoad(tile, [first]), [whole(outputs * pixel)]),
            tirx.BufferStore(
                out, tirx.BufferLoad(tile, [tirx.Ramp(beside, 1, 4)]),
                [tirx.Ramp(tirx.IntImm("int32", outputs * pixel + lanes), 1, 4)],
            ),
        ]  # fmt: skip
    return tirx.PrimFunc([x, w, bias, out], tirx.SeqStmt(body)).with_attr(LANES, lanes)


@pytest.mark.smoke
@pytest.mark.parametrize(("pixels", "vectors"), [(3, 1), (4, 1), (5, 2), (9, 3)])
def test_a_vector_has_four_pixels(pixels: int, vectors: int) -> None:
    text = share_vectors(_sums(pixels)).script()
    assert text.count("T.Shuffle([inputs") == 4 * vectors
    assert text.count("T.Broadcast(x[") == 4 * pixels


@pytest.mark.smoke
def test_what_it_does_not_know_stays_as_it_is() -> None:
    def own(pixel: int) -> Any:
        return tirx.Broadcast(tirx.FloatImm("float32", float(pixel)), 16)

    for function in (_sums(step=2), _sums(start=own), _one_product_at_a_time()):
        assert share_vectors(function).script() == function.script()


@pytest.mark.smoke
def test_with_avx2_other_inputs_are_blended() -> None:
    function = _sums(step=2, lanes=8)
    text = share_vectors(function).script()
    # Of two vectors for each of the pixels one is left, and one for two pixels.
    assert text.count("T.Shuffle([T.Broadcast(x[") == 4 * 2
    assert text.count("tile[8:16] = ") == 5
    assert "tile[24:32] = " not in text


def _one_product_at_a_time() -> tirx.PrimFunc:
    x, w, out = (tirx.decl_buffer((64,), "float32", name) for name in ("x", "w", "out"))
    tile = tirx.decl_buffer((16,), "float32", "tile")
    k, row = tirx.Var("k", "int32"), tirx.Var("row", "int32")
    at, few = (tirx.Ramp(tirx.IntImm("int32", 0), 1, lanes) for lanes in (16, 8))
    product = tirx.Broadcast(tirx.BufferLoad(x, [k]), 16) * tirx.BufferLoad(
        w, [tirx.Ramp(row, 1, 16)]
    )
    added = tirx.BufferStore(tile, tirx.BufferLoad(tile, [at]) + product, [at])
    zeros = tirx.Broadcast(tirx.FloatImm("float32", 0.0), 16)
    body = [
        tirx.AllocBuffer(tile),
        tirx.BufferStore(tile, zeros, [at]),
        tirx.For(k, 0, 4, tirx.ForKind.SERIAL, tirx.SeqStmt([tirx.Bind(row, k * 16), added])),
        tirx.BufferStore(out, tirx.BufferLoad(tile, [few]), [few]),
    ]
    return tirx.PrimFunc([x, w, out], tirx.SeqStmt(body)).with_attr(LANES, 16)
