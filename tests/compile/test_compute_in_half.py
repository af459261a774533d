"""Networks in half precision: nodes counted, numbers compared, ranges found, cores refused."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
import tvm
from stages import AVX512, HOST, avx512, count, draw, imported, run, seeded, with_schedules
from torch import Tensor, nn
from torch.nn import functional

from shuffledeploy.compiler.cores import CORES
from shuffledeploy.compiler.frontend.program import Program
from shuffledeploy.compiler.half_range import KEPT_BELOW, range_in_half
from shuffledeploy.compiler.ir.attributes import HALF_SCALE, kind_of
from shuffledeploy.compiler.ir.graph import Array, bindings_of, constant_of
from shuffledeploy.compiler.ir.inspection import element_of, kernel_functions
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF
from shuffledeploy.compiler.passes.graph.compute_in_half import LARGEST, compute_in_half
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.compiler.tuning.records.recorded_schedules import kernel_key
from shuffledeploy.model.errors import UsageError

A76: CompileTarget = find_target("cortex-a76").computing_in(HALF)
#: This machine's passes and schedules, of networks in half precision.
HOST_IN_HALF: CompileTarget = dataclasses.replace(HOST, precision=HALF)
SHAPE = (1, 3, 18, 14)
#: Of the largest number of an answer; half has eleven binary digits.
ROUNDING = 1e-2


class Units(nn.Module):
    """What networks of the zoo are made of: shuffle, residual, join, pools, clip, classifier."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.stem, self.compress = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 24, 1, groups=3)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.expand, self.classifier = nn.Conv2d(24, 12, 1, groups=3), nn.Linear(24, 10)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu6(self.stem(x)), 3, 2, 1) * self.factor
        y = functional.channel_shuffle(torch.relu(self.compress(x)), 3)
        y = torch.relu(self.expand(self.depthwise(y)) + x)
        y = torch.cat([functional.avg_pool2d(y, 3, 2, 1), functional.max_pool2d(y, 3, 2, 1)], 1)
        return self.classifier(y.mean((2, 3))) / self.factor


class Slopes(nn.Module):
    """What a positive factor passes through beside ReLU, and a split."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.prelu = nn.Conv2d(3, 12, 3), nn.PReLU(12)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.prelu(functional.leaky_relu(self.conv(x), 0.125))
        left, right = x.abs().split(6, 1)
        return torch.maximum(left, right * 2).mean((2, 3)), -torch.minimum(left, right)


class Gated(nn.Module):
    """A product of two tensors, a sigmoid and an exponential: no factor passes through them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        z = self.last((y * torch.sigmoid(y)).mean((2, 3)))
        return torch.exp(-z), z.split(2, 1)[0]


def _before(program: Program, scale: float = 1.0) -> tvm.IRModule:
    """Run the pipeline up to the pass."""
    steps = steps_of(pipeline(A76), Phase.GRAPH)
    at = [step.name for step in steps].index(compute_in_half.__name__)
    return run_steps(program.module.with_attr(HALF_SCALE, scale), steps[:at])


def _lowered(program: Program, target: CompileTarget, scale: float = 1.0) -> tvm.IRModule:
    module = program.module.with_attr(HALF_SCALE, scale)
    return run_steps(module, steps_of(pipeline(target), Phase.GRAPH))


def is_float_call(value: object) -> bool:
    """Whether an expression is a call that gives one tensor of floats."""
    return "float" in str(getattr(getattr(value, "ty", None), "dtype", ""))


def _assert_near(actual: list[Array], network: nn.Module, value: Tensor) -> None:
    with torch.no_grad():
        answer = network(value)
    expected = [answer] if isinstance(answer, Tensor) else list(answer)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == np.float32
        error = np.abs(ours - theirs.numpy()).max() / np.abs(theirs.numpy()).max()
        # Also not less: what is computed in float32 has errors a thousand times smaller.
        assert 1e-6 < error < ROUNDING


def test_one_cast_at_each_border_and_nothing_else_is_added() -> None:
    module = _before(imported(seeded(Units()), *SHAPE))
    before, after = count(module), count(compute_in_half(module))
    assert after - before == {"astype": 2}
    assert not before - after


def test_all_weights_are_half_and_operators_between_the_casts() -> None:
    module = compute_in_half(_before(imported(seeded(Units()), *SHAPE)))
    values = [value for _, value in bindings_of(module)]
    arrays = [constant_of(a) for v in values for a in getattr(v, "args", ())]
    assert {str(array.dtype) for array in arrays if array is not None} <= {HALF, "int64", "int32"}
    types = [str(value.ty.dtype) for value in values if hasattr(value.ty, "dtype")]
    assert (types.count(FLOAT), types[-1]) == (1, FLOAT)


@pytest.mark.parametrize("scale", [1.0, 2.0**-5])
def test_numbers_are_the_networks_at_any_scale(scale: float) -> None:
    for network in (seeded(Units()), seeded(Slopes())):
        value = draw(*SHAPE)
        module = compute_in_half(_before(imported(network, *SHAPE), scale))
        types = Counter(
            str(call.ty.dtype) for _, call in bindings_of(module) if is_float_call(call)
        )
        assert types[FLOAT] <= 5 < types[HALF]
        _assert_near(run(module, value.numpy()), network, value)


@pytest.mark.parametrize("scale", [1.0, 2.0**-5])
def test_what_no_factor_passes_through_stays_float32(scale: float) -> None:
    network, value = seeded(Gated()), draw(1, 3, 5, 4)
    module = compute_in_half(_before(imported(network, 1, 3, 5, 4), scale))
    for variable, call in bindings_of(module):
        if getattr(getattr(call, "op", None), "name", "") in ("relax.exp", "relax.sigmoid"):
            assert str(variable.ty.dtype) == FLOAT
    _assert_near(run(module, value.numpy()), network, value)


@pytest.mark.parametrize("network", [Units(), Gated(), Slopes()])
def test_scheduled_kernels_of_half_compute_the_network(network: nn.Module) -> None:
    network, value = seeded(network), draw(*SHAPE)
    module = with_schedules(_lowered(imported(network, *SHAPE), HOST_IN_HALF))
    _assert_near(run(module, value.numpy()), network, value)


def test_kernels_of_half_have_vectors_of_eight_and_keys_of_their_own() -> None:
    program = imported(seeded(Units()), *SHAPE)
    plain, half = (kernel_functions(_lowered(program, t)) for t in (find_target("cortex-a76"), A76))
    ours = {name: f for name, f in half.items() if kind_of(f)}
    assert set(ours) == {name for name, f in plain.items() if kind_of(f)}
    for name, function in ours.items():
        assert element_of(function) == HALF
        assert kernel_key(function) != kernel_key(plain[name])
        if "lanes" in function.attrs:
            assert (int(plain[name].attrs["lanes"]), int(function.attrs["lanes"])) == (4, 8)


def test_long_sums_of_pools_are_float32_and_short_ones_cannot_overflow() -> None:
    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x = torch.relu(self.conv(x))
            padded = functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
            return x.mean((2, 3)), functional.avg_pool2d(x, 3, 2, 1), padded

    network, value = seeded(Pools()), draw(*SHAPE) * 10_000
    module = with_schedules(_lowered(imported(network, *SHAPE), HOST_IN_HALF))
    _assert_near(run(module, value.numpy()), network, value)


def test_layers_that_go_winograds_way_do_so_in_float32() -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 48, 5, padding=2), nn.ReLU()))
    program, value = imported(network, 1, 3, 15, 14), draw(1, 3, 15, 14)
    module = _lowered(program, HOST_IN_HALF)
    kernels = {
        name.split("_")[1]: f for name, f in kernel_functions(module).items() if "wino" in name
    }
    elements = {name: (str(f.params[0].dtype), element_of(f)) for name, f in kernels.items()}
    assert elements == {"input": (HALF, FLOAT), "product": (FLOAT, FLOAT), "output": (FLOAT, HALF)}
    assert int(kernels["product"].attrs["lanes"]) <= HOST.core.lanes
    _assert_near(run(with_schedules(module), value.numpy()), network, value)


@pytest.mark.parametrize(("rows", "outputs"), [(1, 20), (6, 32)])
def test_long_sums_of_linear_layers_lose_no_digits(rows: int, outputs: int) -> None:
    network = seeded(nn.Linear(4096, outputs))
    with torch.no_grad():
        # One by one in half, such a sum would stop at 512, where a quarter is less than a digit.
        network.weight.fill_(0.25)
    value = torch.ones(rows, 4096)
    module = _lowered(imported(network, rows, 4096), HOST_IN_HALF)
    expected = network(value).detach().numpy()
    for stage in (module, with_schedules(module)):
        error = np.abs(run(stage, value.numpy())[0] - expected).max()
        assert error <= 1024 * 2.0**-11


def test_large_numbers_are_kept_small() -> None:
    program = imported(seeded(Units(factor=100_000.0)), *SHAPE)
    found = range_in_half(program)
    assert found.largest > LARGEST
    assert KEPT_BELOW / 2 < found.largest * found.scale <= KEPT_BELOW
    assert f"1/{1 / found.scale:.0f} of" in found.sentence
    network, value = seeded(Units(factor=100_000.0)), draw(*SHAPE)
    module = with_schedules(_lowered(program, HOST_IN_HALF, found.scale))
    _assert_near(run(module, value.numpy()), network, value)
    unscaled = with_schedules(_lowered(program, HOST_IN_HALF))
    assert not np.isfinite(run(unscaled, value.numpy())).all()


def test_numbers_of_order_one_stay_as_they_are() -> None:
    found = range_in_half(imported(seeded(Units()), *SHAPE))
    assert (found.scale, found.sentence) == (1.0, "")


def test_numbers_that_half_cannot_hold_are_refused_by_their_layer() -> None:
    with pytest.raises(UsageError, match=r"reach 1\.\de\+08 .*--precision float32"):
        range_in_half(imported(seeded(Units(factor=2e7)), *SHAPE))


def test_hosts_need_arithmetic_of_half_only_for_half() -> None:
    without = avx512()
    sapphire = find_target(AVX512.replace("skylake-avx512", "sapphirerapids"))
    assert "avx512_fp16" not in sapphire.features
    assert "avx512_fp16" in sapphire.computing_in(HALF).features
    assert sapphire.computing_in(FLOAT) == sapphire
    with pytest.raises(UsageError, match="hosts with AVX512-FP16"):
        without.computing_in(HALF)


@pytest.mark.parametrize("name", CORES)
def test_cores_without_half_arithmetic_are_refused_with_what_to_do(name: str) -> None:
    core = CORES[name]
    assert core.computes_in_half == (core.part not in (0xD03, 0xD04, 0xD07, 0xD08, 0xD09))
    if core.is_target and not core.computes_in_half:
        with pytest.raises(UsageError, match=rf"{name} has no .*float32.*cortex-a76"):
            find_target(name).computing_in(HALF)
    elif core.is_target:
        assert "asimdhp" in find_target(name).computing_in(HALF).features
