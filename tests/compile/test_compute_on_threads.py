"""Kernels that several threads compute: parts counted, bits compared."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from drawn_networks import Drawn
from stages import (
    HOST,
    QUICK,
    assert_same_bits,
    bindings_of,
    draw,
    flat,
    imported,
    lowered,
    seeded,
    with_schedules,
)
from strip_networks import Units, calls
from torch import nn
from tvm import relax, tirx

from shuffledeploy.compiler.bundle.folder import load_bundle
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.ir.attributes import PARTS, attribute, kernel_of
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.passes.memory.compute_on_threads import compute_on_threads
from shuffledeploy.compiler.passes.memory.expose_intermediates import (
    INTERMEDIATES,
    expose_intermediates,
)
from shuffledeploy.compiler.passes.memory.launch_once import launch_once
from shuffledeploy.compiler.passes.memory.residual_in_place import residual_in_place
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.threads.parts import part_bounds, part_of
from shuffledeploy.model.errors import UsageError

SHAPE = (1, 3, 57, 45)


@pytest.fixture(autouse=True)
def _three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let TVM's next pool have three threads, whatever this machine has."""
    monkeypatch.setenv("TVM_NUM_THREADS", "3")
    monkeypatch.setenv("TVM_BIND_THREADS", "0")


def assert_threads_agree(
    before: tvm.IRModule, after: tvm.IRModule, value: Array, **options: Any
) -> None:
    """Compare the bits of two modules, run by a pool of three threads."""

    def compare() -> None:
        tvm.get_global_func("runtime.config_threadpool")(1, 3)
        assert tvm.get_global_func("runtime.NumThreads")() == 3
        assert_same_bits(before, after, value, **options)

    # TVM has a pool for each thread that asks: a new thread has a new one.
    with ThreadPoolExecutor(1) as caller:
        caller.submit(compare).result()


def on_threads(network: nn.Module, *shape: int, threads: int) -> tuple[tvm.IRModule, tvm.IRModule]:
    """Lower a network; give it for one thread, and for several."""
    module = with_schedules(lowered(imported(network, *shape).module))
    module = residual_in_place(expose_intermediates(module))
    return module, compute_on_threads(module, threads, fetches=False)


class Small(nn.Module):
    """A convolution, a function that no kernel of ours covers, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.fmod(self.conv(x), 2.0).mean((2, 3)))


class Tokens(nn.Module):
    """A norm, an attention of three heads, and a product of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(24), nn.Linear(24, 72)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(self.norm(x)).reshape(1, 37, 3, 3, 8).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        x = nn.functional.scaled_dot_product_attention(q, k, v)
        return x.transpose(2, 3) @ v


@pytest.fixture(scope="module")
def units() -> nn.Module:
    """Give a network with residuals, shuffles, pools and a concatenation."""
    return seeded(Units())


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("units", [1, 5, 8, 21])
def test_parts_cover_all_units_once(units: int, parts: int) -> None:
    found: list[int] = []
    for part in range(parts):
        first, end = (int(tvm.sym.Analyzer().simplify(b))
                      for b in part_bounds(tirx.IntImm("int32", part), units, parts))  # fmt: skip
        found += range(first, end)
    assert found == list(range(units))


def test_kernels_of_ours_have_parts(units: nn.Module) -> None:
    before, after = on_threads(units, *SHAPE, threads=3)
    functions = kernel_functions(after)
    assert calls(after) == calls(before)
    # With masks the mean is a single vector of channels, else it has one for each thread.
    whole = [name for name in calls(after) if int(attribute(functions[name], PARTS)) == 1]
    assert [name.split("_")[0] for name in whole] == (["mean"] if HOST.core.masks else [])
    kernels = {kernel_of(function, name) for name, function in functions.items()}
    assert kernels <= set(kernel_functions(before))


def test_threads_answer_as_one_does_bit_for_bit(units: nn.Module) -> None:
    before, after = on_threads(units, *SHAPE, threads=3)
    assert_threads_agree(before, after, draw(*SHAPE).numpy())


def test_what_each_layer_writes_is_the_same(units: nn.Module) -> None:
    before, after = on_threads(units, *SHAPE, threads=2)
    value = draw(*SHAPE).numpy()
    assert_threads_agree(before, after, value, entry=INTERMEDIATES, target=QUICK)


def test_images_of_a_batch_are_shared_out(units: nn.Module) -> None:
    shape = (3, 3, 29, 21)
    before, after = on_threads(units, *shape, threads=2)
    assert_threads_agree(before, after, draw(*shape).numpy(), target=QUICK)


@pytest.mark.parametrize("seed", [1, 7])
def test_a_drawn_network_on_three_threads(seed: int) -> None:
    network = seeded(Drawn(seed), seed)
    before, after = on_threads(network, 1, 3, 37, 11, threads=3)
    assert_threads_agree(before, after, draw(1, 3, 37, 11).numpy(), target=QUICK)


def test_rows_of_tokens_and_heads_are_shared_out() -> None:
    before, after = on_threads(seeded(Tokens()), 1, 37, 24, threads=2)
    functions = kernel_functions(after)
    assert [name.split("_")[0] for name in calls(after)] == [
        "norm", "conv1x1", "attention", "product",
    ]  # fmt: skip
    assert all(int(attribute(functions[name], PARTS)) == 2 for name in calls(after))
    finished = [run_steps(m, steps_of(pipeline(HOST), Phase.KERNEL)) for m in (before, after)]
    assert_threads_agree(*finished, draw(1, 37, 24).numpy(), target=QUICK)


@pytest.mark.parametrize("outputs", [1000, 4096])
def test_outputs_of_a_linear_layer_are_shared_out(outputs: int) -> None:
    """Weights beyond 2 MiB are streamed: sums of the whole layer stand in a buffer of each part."""
    network = seeded(nn.Linear(4608 if outputs < 4096 else 256, outputs))
    shape = (1, network.in_features)
    before, after = on_threads(network, *shape, threads=3)
    (name,) = calls(after)
    assert int(attribute(kernel_functions(after)[name], PARTS)) == 3
    assert_threads_agree(before, after, draw(*shape).numpy())


def test_a_kernel_with_fewer_steps_than_threads_stays_whole() -> None:
    module = lowered(imported(seeded(nn.Linear(8, 4)), 1, 8).module)
    (function,) = kernel_functions(module).values()
    assert part_of(scheduled(function, HOST.core), 64) is None


def test_neighbouring_kernels_are_launched_once(units: nn.Module) -> None:
    target = HOST.on_threads(2)
    module = lowered(imported(units, *SHAPE).module)
    kernels = kernel_functions(module)
    chosen = {name: scheduled(function, HOST.core) for name, function in kernels.items()}
    steps = pipeline(target, kernels, chosen)
    module = run_steps(module, steps_of(steps, Phase.SCHEDULE, Phase.MEMORY, Phase.PLAN))

    def called(module: tvm.IRModule) -> list[str]:
        values = [value for _, value in bindings_of(module) if isinstance(value, tvm.ir.Call)]
        return [v.op.name_hint for v in values if isinstance(v.op, tvm.ir.GlobalVar)]

    assert len(called(module)) > 10
    assert called(launch_once(module)) == [f"launch_of_{len(called(module))}"]


def test_a_network_of_little_work_stays_on_one_thread(units: nn.Module) -> None:
    module = with_schedules(lowered(imported(units, *SHAPE).module))
    work = sum(
        int(attribute(f, "multiply_adds") or 0) * calls(module).count(name)
        for name, f in kernel_functions(module).items()
    )
    assert work > 0
    assert compute_on_threads(module, 2, fetches=False, least_work=work + 1).same_as(module)
    after = compute_on_threads(module, 2, fetches=False, least_work=work)
    assert any(attribute(f, PARTS) for f in kernel_functions(after).values())


def test_a_bundle_for_threads_says_so_and_is_right_on_fewer(tmp_path: Path) -> None:
    network = lower(trace(seeded(Small()), (1, 3, 9, 7)), HOST)
    chosen = choose_schedules(network, HOST, {})

    def answer(threads: int) -> Array:
        target = QUICK.on_threads(threads)
        bundle = write_bundle(
            tmp_path / f"on-{threads}", network, chosen, target, network="small",
            normalisation=None, options={}, standalone="small",
        )  # fmt: skip
        assert load_bundle(bundle.path).manifest.threads == threads
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(bundle.library)), tvm.cpu())
        (value,) = bundle.reference_inputs()[0]
        (tensor,) = flat(machine["main"](tvm.runtime.tensor(value)))
        return np.asarray(tensor.numpy())

    np.testing.assert_array_equal(answer(5), answer(1))


@pytest.mark.parametrize("threads", [0, 65])
def test_numbers_of_threads_are_checked(threads: int) -> None:
    with pytest.raises(UsageError, match="threads are 1 to 64"):
        HOST.on_threads(threads)
