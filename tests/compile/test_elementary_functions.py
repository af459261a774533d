"""Exponentials and their relatives: errors over all of float32, no call of libm for a lane."""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from stages import HOST
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.attributes import LANES
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.library import compiled_kernels
from shuffledeploy.compiler.targets import CompileTarget, find_target

FUNCTIONS = {"exp": torch.exp, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "erf": torch.erf}
#: Largest errors in units in the last place, of results that are normal numbers.
MOST_ULPS = {"exp": 1.3, "sigmoid": 2.5, "tanh": 1.5, "erf": 1.1}
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
COUNT = 1 << 15
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38)


def _kernel(name: str, lanes: int, vector: int = 0) -> tvm.IRModule:
    """Write a kernel of one function; `vector` is the lanes of the target, where they are known."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({"global_symbol": "main", **({LANES: vector} if vector else {})})
            x = T.arg("x", T.buffer((COUNT,), "float32"))
            out = T.arg("out", T.buffer((COUNT,), "float32"))
            with T.serial(0, COUNT // lanes) as i, T.vectorized(0, lanes) as lane:
                at = i * lanes + lane
                T.buffer_store(out, getattr(tirx, name)(x[at]), [at])
    return tvm.IRModule({"main": builder.get()})


@functools.cache
def _compiled(name: str, lanes: int = 16, vector: int = 0) -> Any:
    return compiled_kernels(_kernel(name, lanes, vector), HOST)["main"]


def _computed(run: Any, values: Array) -> Array:
    given = tvm.runtime.tensor(values.astype(np.float32))
    answer = tvm.runtime.tensor(np.zeros(COUNT, np.float32))
    run(given, answer)
    return np.asarray(answer.numpy())


def _drawn() -> Array:
    """Draw floats of every exponent and sign, and many near zero and where results turn."""
    rng = np.random.default_rng(3)
    bits = np.arange(8 * COUNT, dtype=np.uint64) * (1 << 32) // (8 * COUNT)
    everywhere = (bits + rng.integers(0, 1 << 14, bits.size)).astype(np.uint32).view(np.float32)
    everywhere = np.where(np.isnan(everywhere), np.float32(np.nan), everywhere)
    near = [rng.uniform(-bound, bound, COUNT) for bound in (0.5, 2.0, 12.0, 110.0)]
    special = np.resize(np.array(SPECIAL), COUNT)
    return np.concatenate([part.astype(np.float32) for part in (everywhere, *near, special)])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_are_a_few_units_in_the_last_place(name: str) -> None:
    values = _drawn()
    actual = np.concatenate(
        [_computed(_compiled(name), v) for v in np.split(values, values.size // COUNT)]
    )
    exact = FUNCTIONS[name](torch.from_numpy(values).double()).numpy()
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(rounded))
    infinite = np.isinf(rounded)
    np.testing.assert_array_equal(actual[infinite], rounded[infinite])
    finite = ~infinite & ~np.isnan(rounded)
    size = np.maximum(np.abs(rounded[finite]), SMALLEST_NORMAL)
    errors = np.abs(actual[finite].astype(np.float64) - exact[finite]) / np.spacing(size)
    normal = np.abs(exact[finite]) >= SMALLEST_NORMAL
    assert errors[normal].max() <= MOST_ULPS[name], values[finite][normal][errors[normal].argmax()]
    # What is smaller may be given as another number as small.
    assert np.abs(actual[finite][~normal]).max() <= SMALLEST_NORMAL


def test_powers_of_two_are_right_from_the_smallest_on_that_are_not_taken_for_zero() -> None:
    values = _drawn()
    parts = np.split(values, values.size // COUNT)
    actual = np.concatenate([_computed(_compiled("exp2"), part) for part in parts])
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(values))
    assert np.isinf(actual[values >= 128]).all()
    assert not actual[values <= -126].any()
    within = (values >= -125.49) & (values < 128)
    exact = np.exp2(values[within].astype(np.float64))
    errors = np.abs(actual[within] - exact) / np.spacing(exact.astype(np.float32))
    assert errors.max() <= 2.0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vectors_of_any_width_compute_the_same(name: str) -> None:
    values = np.linspace(-20, 20, COUNT).astype(np.float32)
    expected = _computed(_compiled(name), values)
    for lanes, vector in ((1, 0), (4, 4), (64, 16), (32, 8)):
        np.testing.assert_array_equal(_computed(_compiled(name, lanes, vector), values), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "target", [HOST, find_target("cortex-a72")], ids=lambda target: target.name
)
def test_no_function_is_called_for_each_lane(name: str, target: CompileTarget) -> None:
    code = compiled_kernels(_kernel(name, 4), target).mod.inspect_source("asm")
    called = set(re.findall(r"\b(?:callq?|bl|b|jmp)\s+(\w+)", code))
    assert not called & {f"{name}f", name, "expf", "tanhf", "erff", "logf"}
