"""Networks in int8: nodes counted, sums exact, numbers near, ranges found, bad inputs refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from int8_networks import A76, SHAPE, Units, Wide, Words, assembly, ranged
from stages import HOST, count, draw, imported, run, seeded, with_schedules
from torch import nn

from shuffledeploy.compiler.int8_ranges import (
    KEPT,
    Watched,
    best_way,
    held_in_int8,
    some_elements,
    with_int8_ranges,
)
from shuffledeploy.compiler.ir.graph import (
    Array,
    bindings_of,
    called_kernel,
    constant_of,
    shape_of,
)
from shuffledeploy.compiler.ir.inspection import element_of, kernel_functions
from shuffledeploy.compiler.ir.memory_layout import FLOAT, INT8, Held
from shuffledeploy.compiler.kernels.int8_sums import CENTRE, CENTRE_BITS, REACH
from shuffledeploy.compiler.passes.graph.compute_in_int8 import compute_in_int8, int8_tensors
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.proof_arrays import unscheduled_writes
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.records.recorded_schedules import kernel_key
from shuffledeploy.model.errors import UsageError

HOST_IN_INT8: CompileTarget = dataclasses.replace(HOST, precision=INT8)


def _before(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pipeline up to the pass."""
    steps = steps_of(pipeline(A76), Phase.GRAPH)
    at = [step.name for step in steps].index(compute_in_int8.__name__)
    return run_steps(module, steps[:at])


def _lowered(module: tvm.IRModule, target: CompileTarget = A76) -> tvm.IRModule:
    return run_steps(module, steps_of(pipeline(target), Phase.GRAPH))


def _signal_to_noise(actual: Array, network: nn.Module) -> float:
    with torch.no_grad():
        expected = network(draw(*SHAPE)).numpy()
    return float(20 * np.log10(expected.std() / (actual - expected).std()))


def test_each_tensor_between_layers_is_one_pair_and_nothing_else_is_added() -> None:
    before = _before(ranged(Words))
    assert len(int8_tensors(before)) == 5
    after = count(compute_in_int8(before))
    assert after - count(before) == {"quantize": 5, "dequantize": 5}
    assert not count(before) - after


@pytest.mark.parametrize("kind", [Units, Words])
def test_numbers_are_near_and_kernels_write_int8(kind: type[nn.Module]) -> None:
    network, module = seeded(kind()), ranged(kind)
    lowered = _lowered(module)
    written = [element_of(f) for f in kernel_functions(lowered).values()]
    assert written.count(INT8) == len(held_in_int8(module)) >= 5
    unscheduled = run(lowered, draw(*SHAPE).numpy())[0]
    assert 20 < _signal_to_noise(unscheduled, network) < 60
    scheduled = run(with_schedules(lowered, A76.core), draw(*SHAPE).numpy())[0]
    # Whole numbers are the same; of the rest, sums of float32 round otherwise.
    assert np.abs(scheduled - unscheduled).max() < 0.1 * unscheduled.std()


def test_a_host_computes_the_same_network() -> None:
    network = seeded(Units())
    program = imported(network, *SHAPE)
    module = with_int8_ranges(program.module, HOST_IN_INT8, [[draw(*SHAPE).numpy()]])
    lowered = _lowered(module, HOST_IN_INT8)
    answer = run(with_schedules(lowered), draw(*SHAPE).numpy())[0]
    assert _signal_to_noise(answer, network) > 20


def test_a_linear_layer_reads_the_mean_in_words_and_writes_float32() -> None:
    functions = kernel_functions(_lowered(ranged(Units)))
    linear = next(f for name, f in functions.items() if name.startswith("linear"))
    assert [str(linear.params[place].dtype) for place in (0, 1, -1)] == [INT8, "int32", FLOAT]
    mean = next(f for name, f in functions.items() if name.startswith("mean"))
    assert element_of(mean) == INT8


def _reference(x: Array, call: Any, taps: tuple[int, int], stride: int, zero: int) -> Array:
    """Compute what a kernel reads as words, in whole numbers."""
    words, scales, *offsets, starts = _constants(call)
    groups, kh, kw, depth, _ = words.shape
    inputs, outputs = x.shape[3] // groups, scales.size // groups
    weights = words.view(np.int8).reshape(*words.shape, 4).astype(np.int64)
    pad = taps[0] // 2
    padded = np.pad(x.astype(np.int64), ((0, 0), (pad, pad), (pad, pad), (0, 0)),
                    constant_values=zero)  # fmt: skip
    rows = (x.shape[1] + 2 * pad - kh) // stride + 1
    columns = (x.shape[2] + 2 * pad - kw) // stride + 1
    sums = np.zeros((rows, columns, groups, outputs), np.int64) + starts[:, :outputs]
    for group in range(groups):
        for i in range(kh):
            for j in range(kw):
                seen = padded[0, i : i + stride * rows : stride, j : j + stride * columns : stride]
                for word in range(depth):
                    first = group * inputs + min(4 * word, inputs - 4)
                    for lane in range(4):
                        taken = weights[group, i, j, word, :outputs, lane]
                        sums[:, :, group] += seen[..., first + lane, np.newaxis] * taken
    return _narrowed(sums.reshape(rows, columns, -1), scales, offsets)


def _reference_by_channel(x: Array, call: Any, zero: int) -> Array:
    """Compute a depthwise layer of 3x3 windows, whose words are columns, in whole numbers."""
    words, scales, *offsets, starts = _constants(call)
    taps = words.view(np.int8).reshape(*words.shape, 4).astype(np.int64)
    assert words.shape[:2] == (1, 3) and not taps[..., 3].any()
    # Vectors of eight: the second overlaps the first.
    places = [*range(8), *range(4, 12)]
    _, height, width, channels = x.shape
    assert (channels, taps.shape[2]) == (12, len(places))
    padded = np.pad(x[0].astype(np.int64), ((1, 1), (1, 1), (0, 0)), constant_values=zero)
    sums = np.zeros((height, width, len(places)), np.int64) + starts
    for i in range(3):
        for j in range(3):
            sums += padded[i : i + height, j : j + width, places] * taps[0, j, :, i]
    written = _narrowed(sums, scales, offsets)
    np.testing.assert_array_equal(written[..., 4:8], written[..., 8:12])
    return np.concatenate([written[..., :8], written[..., 12:]], axis=-1)


def _constants(call: Any) -> list[Array]:
    found = [constant_of(argument) for argument in call[1:]]
    return [array for array in found if array is not None]


def _narrowed(sums: Array, scales: Array, offsets: list[Array]) -> Array:
    """Read sums as digits of a float32 that counts by ones: scaled and rounded at once."""
    assert np.abs(sums - CENTRE_BITS).max() < REACH and len(offsets) == 1
    numbers = (sums - CENTRE_BITS + CENTRE) * scales.astype(np.float64)
    rounded = np.rint(numbers + offsets[0]) - CENTRE
    return np.clip(rounded, -128, 127).astype(np.int8)[np.newaxis]


def test_sums_of_words_are_exact() -> None:
    module = ranged(Words)
    lowered = _lowered(module)
    writes = [parts[0] for parts in unscheduled_writes(lowered, [draw(*SHAPE).numpy()])]
    calls = [value for _, value in bindings_of(lowered) if called_kernel(value) is not None]
    held = held_in_int8(module)
    assert [way.zero for way in held] == [-128, -128, -128, 0, 0]
    for place, taps, stride in ((1, (1, 1), 1), (2, (3, 3), 2)):
        arguments = calls[place].args[1].fields
        expected = _reference(writes[place - 1], arguments, taps, stride, held[place - 1].zero)
        np.testing.assert_array_equal(writes[place], expected)
    expected = _reference_by_channel(writes[2], calls[3].args[1].fields, held[2].zero)
    np.testing.assert_array_equal(writes[3], expected)


def test_dot_products_are_instructions_where_the_core_has_them() -> None:
    lowered = kernel_functions(_lowered(ranged(Words)))
    function = next(f for name, f in lowered.items() if name.startswith("conv1x1_g3"))
    assert "sdot" in assembly(function, A76)
    # Of whole vectors of inputs each takes a lane: nothing is copied to four lanes before.
    wide = next(
        f for name, f in kernel_functions(_lowered(ranged(Wide))).items() if "16x16" in name
    )
    assert ".4b[" in assembly(wide, A76)


def test_layers_that_differ_in_their_numbers_share_their_kernels() -> None:
    program = imported(seeded(Units()), *SHAPE)
    other = with_int8_ranges(program.module, A76, [[3 * draw(*SHAPE).numpy()]])
    assert held_in_int8(other) != held_in_int8(ranged(Units))
    mine, theirs = (kernel_functions(_lowered(m)) for m in (ranged(Units), other))
    alike = {
        name
        for name in mine
        if kernel_key(mine[name]) == kernel_key(theirs[name])
    }  # fmt: skip
    # Those that make int8 of float32, or of an average, have their scales in their code.
    assert {name for name in mine if "_g3_" in name or "depthwise" in name} <= alike
    assert any("held_scales" in str(function) for function in mine.values())


def test_parts_of_a_concatenation_are_held_as_the_whole() -> None:
    module = _before(ranged(Units))
    ways = dict(zip(int8_tensors(module), held_in_int8(module), strict=True))
    joined = next(v for v, value in bindings_of(module) if "concat" in str(value))
    whole = [way for variable, way in ways.items() if shape_of(variable) == shape_of(joined)]
    assert whole[0].zero == -128


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # Where nothing is negative, zero is at the end, and there are 255 steps.
        (np.linspace(0, 51, 1000), Held(0.2, -128)),
        (np.linspace(-25.4, 25.4, 1000), Held(0.2, 0)),
    ],
)
def test_steps_are_as_small_as_numbers_allow(values: Array, expected: Held) -> None:
    found = best_way(Watched(values, np.abs(values).max(), values.min(), values))
    assert found.zero == expected.zero
    assert found.scale == pytest.approx(expected.scale, rel=0.03)


def test_what_is_far_beyond_the_rest_is_cut_off() -> None:
    values = np.r_[np.random.default_rng(0).normal(size=40_000), 8.0, -8.0]
    found = best_way(Watched(values, 8.0, -8.0, values))
    assert found.scale < 0.95 * 8 / 127


def test_no_channel_is_left_out_of_what_is_watched() -> None:
    """A step of 24 over 512 channels would meet 64 of them."""
    for rows, channels in ((196, 512), (49, 1024), (49, 480), (784, 120), (1, 1000), (4, 8)):
        values = np.broadcast_to(np.arange(channels, dtype=np.float32), (1, rows, channels))
        kept = some_elements(values)
        assert set(kept) == set(range(channels))
        assert min(values.size, KEPT // 2) <= kept.size <= 2 * KEPT


@pytest.mark.parametrize(("factor", "complaint"), [(0.0, "are all zero"), (1e38, "are no numbers")])
def test_inputs_that_tell_nothing_are_refused(factor: float, complaint: str) -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1)))
    program = imported(network, *SHAPE)
    with pytest.raises(UsageError, match=f"the numbers of a layer {complaint}"):
        with_int8_ranges(program.module, A76, [[draw(*SHAPE).numpy() * np.float32(factor)]])


def test_a_network_without_layers_for_int8_is_refused() -> None:
    program = imported(seeded(nn.Conv2d(3, 8, 1)), *SHAPE)
    with pytest.raises(UsageError, match="no layer of this network can be computed in int8"):
        with_int8_ranges(program.module, A76, [[draw(*SHAPE).numpy()]])
