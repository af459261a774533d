"""Int8 on cores without dot products: products of pairs give the sums that those of words give."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from int8_networks import A76, SHAPE, Units, Wide, Words, assembly, ranged
from stages import draw, with_schedules
from torch import nn

from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.ir.memory_layout import INT8
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.proof_arrays import unscheduled_writes
from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.compiler.tuning.records.recorded_schedules import kernel_key

A72: CompileTarget = find_target("cortex-a72").computing_in(INT8)


def _lowered(kind: type[nn.Module], target: CompileTarget) -> tvm.IRModule:
    return run_steps(ranged(kind), steps_of(pipeline(target), Phase.GRAPH))


@pytest.mark.parametrize("kind", [Units, Words, Wide])
def test_pairs_give_the_numbers_of_words_to_the_bit(kind: type[nn.Module]) -> None:
    inputs = [draw(*SHAPE).numpy()]
    pairs = _lowered(kind, A72)
    weights = [str(f.params[1].dtype) for f in kernel_functions(pairs).values() if f.params[1:]]
    assert "int16" in weights and "int32" not in weights
    by_pairs = unscheduled_writes(pairs, inputs)
    by_words = unscheduled_writes(_lowered(kind, A76), inputs)
    scheduled_too = unscheduled_writes(with_schedules(pairs, A72.core), inputs)
    for one, other, third in zip(by_pairs, by_words, scheduled_too, strict=True):
        np.testing.assert_array_equal(one, other)
        # Sums of float32 round otherwise in another order.
        apart = np.abs(np.asarray(one, np.float32) - np.asarray(third, np.float32))
        assert apart.max() <= (1 if one[0].dtype == np.int8 else 1e-4)


@pytest.mark.parametrize(
    ("kind", "name", "instructions"),
    [
        (Wide, "conv1x1_16x16", {"smull", "smlal", "sadalp", "dup"}),
        (Words, "depthwise", {"smull", "smlal", "saddw"}),
    ],
)
def test_products_of_pairs_are_instructions_that_every_core_has(
    kind: type[nn.Module], name: str, instructions: set[str]
) -> None:
    lowered = kernel_functions(_lowered(kind, A72))
    kernel = next(function for found, function in lowered.items() if found.startswith(name))
    code = assembly(kernel, A72).split()
    assert instructions <= set(code)
    # Four products of each lane take three instructions, and no more.
    if name.startswith("conv"):
        assert code.count("smull") == code.count("smlal") == code.count("sadalp") > 0


def test_kernels_are_written_as_text_without_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    for target in (A72, A76):
        for function in kernel_functions(_lowered(Words, target)).values():
            kernel_key(function)
    assert "Warning" not in capfd.readouterr().err
