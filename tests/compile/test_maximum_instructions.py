"""The larger and the smaller of two floats are one instruction on AArch64, and NaN stays NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import tirx

from shuffledeploy.compiler.library import compiled_kernels
from shuffledeploy.compiler.passes.tir.maximum_instructions import write_maximums
from shuffledeploy.compiler.targets import find_target

VALUES = np.array([[1, -2, 3, np.nan], [0.5, 4, np.nan, 2]], np.float32)


def _function(dtype: str, lanes: int = 4) -> tirx.PrimFunc:
    """Write ``out = min(max(x, y), x + 1)``."""
    x, y, out = (tirx.decl_buffer((lanes,), dtype, name) for name in ("x", "y", "out"))
    at = tirx.Ramp(0, 1, lanes)
    one, other = tirx.BufferLoad(x, [at]), tirx.BufferLoad(y, [at])
    value = tirx.min(tirx.max(one, other), one + tirx.Broadcast(tirx.const(1, dtype), lanes))
    store = tirx.BufferStore(out, value, [at])
    return tirx.PrimFunc([x, y, out], store).with_attr("global_symbol", "main")


def _ran(function: tirx.PrimFunc) -> Any:
    tensors = [tvm.runtime.tensor(value) for value in (*VALUES, np.zeros(4, np.float32))]
    tvm.compile(tvm.IRModule({"main": function}), "llvm")["main"](*tensors)
    return tensors[-1].numpy()


def test_numbers_stay_and_nan_is_answered() -> None:
    before, after = _ran(_function("float32")), _ran(write_maximums(_function("float32")))
    numbers = ~np.isnan(VALUES).any(axis=0)
    np.testing.assert_array_equal(after[numbers], before[numbers])
    assert np.isnan(after[~numbers]).all()


@pytest.mark.parametrize(("dtype", "changed"), [("float32", 2), ("float16", 2), ("int32", 0)])
def test_floats_alone_are_changed(dtype: str, changed: int) -> None:
    after = write_maximums(_function(dtype)).script()
    assert after.count("llvm.maximum") + after.count("llvm.minimum") == changed


def test_an_arm_core_has_an_instruction_for_each() -> None:
    target = find_target("cortex-a72")
    module = tvm.IRModule({"main": _function("float32").with_attr("target", target.tvm_target)})
    text = compiled_kernels(module, target).mod.inspect_source("asm")
    assert (text.count("fmax\t"), text.count("fmin\t")) == (1, 1)
    assert "fcmgt" not in text
