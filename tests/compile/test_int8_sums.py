"""How sums of int8 become int8: rounded, cut off at the ends, in few instructions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from stages import HOST
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.graph import ENTRY, Array
from shuffledeploy.compiler.ir.memory_layout import INT8, Held
from shuffledeploy.compiler.kernels.blocks import EpilogueStep
from shuffledeploy.compiler.kernels.int8_sums import (
    CENTRE,
    CENTRE_BITS,
    REACH,
    READ_AT,
    Int8Sums,
    narrowed,
    narrowed_short,
    read_number,
    scaled_sum,
)
from shuffledeploy.compiler.kernels.int8_weights import pack_columns, rounded, scales_of
from shuffledeploy.compiler.library import compiled_kernels
from shuffledeploy.compiler.passes.graph.int8_kernels import (
    LARGEST_AT_ONCE,
    Int8Epilogue,
    int8_layer,
)
from shuffledeploy.compiler.passes.tir.joined_stores import join_stores
from shuffledeploy.compiler.targets import CompileTarget, find_target

A76: CompileTarget = find_target("cortex-a76").computing_in(INT8)
Narrow = Callable[[Any, Any, Any], Any]
NUMBERS = np.r_[np.arange(-3000, 3000), -REACH, REACH - 1, 0, 255].astype(np.int32)
LANES = 4
UNIT = 0.1


def _kernel(sums: Int8Sums, narrow: Narrow, size: int, vectors: int = 1) -> tvm.IRModule:
    """Write a kernel that makes int8 of sums: `vectors` of four side by side at a time."""
    low, high = (tirx.FloatImm("float32", bound) for bound in (-128, 127))
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({"global_symbol": ENTRY})
            total = T.arg("total", T.buffer((size,), "int32"))
            factors = T.arg("factors", T.buffer((2,), "float32"))
            out = T.arg("out", T.buffer((size,), INT8))
            with T.serial(0, size // vectors // LANES) as i, T.unroll(0, vectors) as v:
                with T.vectorized(0, LANES) as lane:
                    at = (i * vectors + v) * LANES + lane
                    scaled = scaled_sum(sums, total[at], factors[0], factors[1])
                    rounded = scaled if sums.at_once else scaled + tirx.FloatImm("float32", CENTRE)
                    T.buffer_store(out, narrow(rounded, low, high), [at])
    return tvm.IRModule({ENTRY: builder.get()})


@pytest.mark.parametrize("narrow", [narrowed, narrowed_short])
@pytest.mark.parametrize("sums", [Int8Sums(), Int8Sums(True), Int8Sums(True, True)])
def test_sums_are_scaled_rounded_and_cut_off(sums: Int8Sums, narrow: Narrow) -> None:
    numbers = NUMBERS[np.abs(NUMBERS) < REACH // 16] if narrow is narrowed_short else NUMBERS
    numbers = numbers[: numbers.size // LANES * LANES]
    scale = np.float32(0.043)
    offset = np.float32(np.rint(CENTRE - CENTRE * float(scale)))
    lost = CENTRE - CENTRE * float(scale) - float(offset) if sums.at_once else 0.0
    expected = np.clip(np.rint(numbers * float(scale) - lost), -128, 127)
    given = numbers + CENTRE_BITS if sums.centred else numbers
    run = compiled_kernels(_kernel(sums, narrow, given.size), HOST)[ENTRY]
    written = tvm.runtime.tensor(np.zeros(given.size, np.int8))
    factors = np.array([scale, offset], np.float32)
    run(tvm.runtime.tensor(given.astype(np.int32)), tvm.runtime.tensor(factors), written)
    np.testing.assert_array_equal(written.numpy(), expected)


def test_int8_are_read_as_float32_with_no_conversion() -> None:
    held = np.arange(-128, 128).astype(np.int8)
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({"global_symbol": ENTRY})
            read = T.arg("read", T.buffer(held.shape, INT8))
            out = T.arg("out", T.buffer(held.shape, "float32"))
            with T.serial(0, held.size // LANES) as i, T.vectorized(0, LANES) as lane:
                at = i * LANES + lane
                T.buffer_store(out, read_number(read[at]), [at])
    module = tvm.IRModule({ENTRY: builder.get()})
    written = tvm.runtime.tensor(np.zeros(held.shape, np.float32))
    compiled_kernels(module, HOST)[ENTRY](tvm.runtime.tensor(held), written)
    np.testing.assert_array_equal(written.numpy(), held + np.float32(READ_AT))
    code = compiled_kernels(module, A76).mod.inspect_source("s")
    assert "sshll" in code and "scvtf" not in code


def _layer(weight: Array, added: float | None = 0.0) -> Any:
    steps = (
        EpilogueStep("bias"),
        EpilogueStep("add", operands=(1, CENTRE)),
        EpilogueStep("narrowed", operands=(1, -128.0, 127.0)),
    )
    ends = Int8Epilogue(steps, UNIT, 3.0, added, (), INT8)
    bias = np.linspace(-2, 2, weight.shape[-1])
    return int8_layer(weight.astype(np.float32), bias, Held(0.02, -128), ends)


def test_what_sums_start_from_takes_back_what_offsets_round_off() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 3, 16, 8)) * 0.05
    layer = _layer(weight)
    assert layer.sums == Int8Sums(centred=True, at_once=True)
    assert [step.kind for step in layer.steps] == ["bias", "narrowed_short"]
    scales, offsets = (factor.astype(np.float64) for factor in layer.factors)
    at_zero = layer.starts - CENTRE_BITS - 128 * layer.whole.reshape(-1, 8).sum(axis=0, dtype=int)
    numbers = (at_zero + CENTRE) * scales + offsets - CENTRE
    # All inputs are zero: what is left is the bias, and the output's own zero.
    expected = np.linspace(-2, 2, 8) / UNIT + 3
    assert np.abs(numbers - expected).max() <= 0.51 * scales.max() <= 0.51 * LARGEST_AT_ONCE


@pytest.mark.parametrize(
    ("weight", "added", "sums", "last"),
    [
        # Of so many products a sum can leave the float32 that count by ones.
        (np.full((1, 1, 512, 4), 8.0), 0.0, Int8Sums(), "narrowed"),
        # Few products: one of a sum stands for many of the output.
        (np.full((1, 1, 4, 4), 64.0), 0.0, Int8Sums(centred=True), "narrowed_short"),
        # What is added after the sum is rounded with it; it may take a number far.
        (np.ones((1, 1, 64, 4)), 3.0, Int8Sums(centred=True), "narrowed_short"),
        (np.ones((1, 1, 64, 4)), 4e4, Int8Sums(centred=True), "narrowed"),
        # Steps that are no sums, and outputs in float32.
        (np.ones((1, 1, 64, 4)), None, Int8Sums(centred=True), "narrowed"),
    ],
)
def test_sums_are_read_in_ways_that_hold_for_all_inputs(
    weight: Array, added: float | None, sums: Int8Sums, last: str
) -> None:
    layer = _layer(weight, added)
    assert (layer.sums, layer.steps[-1].kind) == (sums, last)


@pytest.mark.parametrize("shape", [(3, 3, 24), (1, 1, 60, 40), (2, 1)])
def test_weights_have_scales_that_lose_less_and_stay(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    weight[..., 0] = 0
    scales = scales_of(weight)
    whole = rounded(weight, scales) * scales
    plain = np.abs(weight).max(axis=tuple(range(weight.ndim - 1))) / 127
    plain = np.where(plain > 0, plain, 1)
    lost = [np.square(np.rint(weight / s) * s - weight).sum() for s in (scales, plain)]
    assert lost[0] < 0.95 * lost[1] or not lost[1]
    np.testing.assert_array_equal(rounded(whole, scales_of(whole)) * scales_of(whole), whole)


def test_columns_of_weights_are_words_of_four_rows() -> None:
    taps = np.arange(5 * 2 * 3, dtype=np.int8).reshape(5, 2, 3)
    words = pack_columns(taps).view(np.int8).reshape(2, 2, 3, 4)
    np.testing.assert_array_equal(words[0], taps[:4].transpose(1, 2, 0))
    np.testing.assert_array_equal(words[1, ..., 0], taps[4])
    assert not words[1, ..., 1:].any()


def _stores(places: list[int]) -> tirx.PrimFunc:
    """Write sums of four int32 as int8 at these places, each behind a name for its place."""
    total = tirx.decl_buffer((len(places),), "int32x4", "total")
    out = tirx.decl_buffer((64,), INT8, "out")
    body = []
    for number, place in enumerate(places):
        at = tirx.Var(f"at_{number}", "int32")
        value = tirx.Cast("int8x4", tirx.BufferLoad(total, [number]))
        body += [
            tirx.Bind(at, tirx.IntImm("int32", place)),
            tirx.BufferStore(out, value, [tirx.Ramp(at, 1, LANES)]),
        ]
    return tirx.PrimFunc([total, out], tirx.SeqStmt(body))


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (list(range(0, 28, 4)), [16, 8, 4]),
        ([0, 4, 12, 16], [8, 8]),
        ([4, 0, 8], [4, 4, 4]),
    ],
)
def test_vectors_written_side_by_side_are_written_as_one(
    places: list[int], expected: list[int]
) -> None:
    text = join_stores(_stores(places)).script()
    assert [int(lanes) for lanes in re.findall(r'T.Cast\("int8x(\d+)"', text)] == expected


def test_a_core_makes_sixteen_int8_of_sums_in_few_instructions() -> None:
    size = 4 * LANES * 3
    module = _kernel(Int8Sums(True, True), narrowed_short, size, vectors=4)
    code = compiled_kernels(module, A76).mod.inspect_source("s")
    found = re.findall(r"^\s+(fmla|fmul|fadd|uzp1|sqxtn2?|xtn2?|scvtf|smin|smax)\s", code, re.M)
    # Of sixteen sums: four products, two halvings, two more that cut off.
    assert sorted(found)[:1] == ["fmla"]
    assert not set(found) & {"scvtf", "smin", "smax", "xtn"}
    assert found.count("fmla") == 4 * found.count("sqxtn2") == 2 * found.count("uzp1")
