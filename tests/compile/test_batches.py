"""Batches: the kernels, keys and schedules of one image, and answers that are PyTorch's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tvm
from drawn_networks import Drawn
from stages import (
    HOST,
    QUICK,
    assert_same,
    assert_same_bits,
    bindings_of,
    draw,
    imported,
    lowered,
    operator,
    run,
    seeded,
    shuffle_kernels,
    with_schedules,
)
from standalone_networks import Loaded, standalone
from strip_networks import SMALL, Units, calls
from torch import nn

from shuffledeploy.compiler.ir.attributes import kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.images import images_of
from shuffledeploy.compiler.library_facts import strip_calls
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.network import link_kernels
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.expose_intermediates import expose_intermediates
from shuffledeploy.compiler.passes.memory.join_in_place import join_in_place
from shuffledeploy.compiler.passes.memory.residual_in_place import residual_in_place
from shuffledeploy.compiler.tuning.records.recorded_schedules import kernel_key
from shuffledeploy.compiler.tuning.search.tasks import find_tasks
from shuffledeploy.compiler.zoo import trace_network
from shuffledeploy.model.errors import UsageError


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_of_a_drawn_network_agrees_with_pytorch(seed: int) -> None:
    network = seeded(Drawn(seed), seed)
    value = draw(3, 3, 12, 11)
    module = lowered(imported(network, 3, 3, 12, 11).module)
    assert_same(run(with_schedules(module), value.numpy(), target=QUICK), network, value)


def test_a_batch_has_the_keys_of_one_image_and_no_shuffle() -> None:
    network = seeded(Units())
    keys = []
    for images in (1, 2, 8):
        module = lowered(imported(network, images, 3, 57, 45).module)
        functions = kernel_functions(module)
        assert all(kind_of(f) and images_of(f) == images for f in functions.values())
        assert shuffle_kernels(module) == []
        keys.append([kernel_key(functions[name]) for name in calls(module)])
    assert keys[0] == keys[1] == keys[2]


def _in_memory(module: tvm.IRModule, cache: int) -> tvm.IRModule:
    unscheduled = kernel_functions(module)
    joined = join_in_place(expose_intermediates(with_schedules(module)), unscheduled)
    return residual_in_place(compute_in_strips(joined, unscheduled, cache))


@pytest.mark.parametrize("cache", [SMALL // 2, SMALL, 2 * SMALL, 1 << 30])
def test_each_image_goes_by_strips_in_place(cache: int) -> None:
    network, value = seeded(Units()), draw(3, 3, 57, 45)
    module = lowered(imported(network, 3, 3, 57, 45).module)
    layers, placed = with_schedules(module), _in_memory(module, cache)
    assert bool(strip_calls(placed)) == (cache < 1 << 30)
    assert "relax.call_tir_inplace" in [operator(call) for _, call in bindings_of(placed)]
    assert_same(assert_same_bits(layers, placed, value.numpy()), network, value)


def test_products_read_their_weights_once_for_all_images() -> None:
    network, value = seeded(nn.Sequential(nn.Linear(40, 24), nn.ReLU())), draw(6, 40)
    module = lowered(imported(network, 6, 40).module)
    (function,) = kernel_functions(module).values()
    assert (kind_of(function), images_of(function)) == ("convolution", 1)
    assert_same(run(with_schedules(module), value.numpy(), target=QUICK), network, value)


def test_winograds_planes_of_a_batch() -> None:
    layers = [nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    network, value = seeded(nn.Sequential(*layers)), draw(2, 3, 14, 13)
    module = lowered(imported(network, 2, 3, 14, 13).module)
    names = kernel_functions(module)
    assert sum(name.startswith("winograd") for name in names) == 3
    assert_same(run(with_schedules(module), value.numpy(), target=QUICK), network, value)


def test_a_batch_without_a_runtime(tmp_path: Path) -> None:
    target = dataclasses.replace(QUICK, cache=SMALL)
    value = draw(2, 3, 57, 45)
    bundle = standalone(tmp_path, Units(), value, target=target)
    assert bundle.manifest.strips
    assert_same(Loaded(bundle).run([value.numpy()]), seeded(Units()), value)


def test_a_task_counts_each_image() -> None:
    network = lower(trace_network("shufflenet-g3-x0.5", (64, 64), batch=2), HOST)
    alone = lower(trace_network("shufflenet-g3-x0.5", (64, 64)), HOST)
    linear = "linear", "conv1x1_480"
    twice = {t.key: t.calls for t in find_tasks(network, HOST) if not t.name.startswith(linear)}
    once = {t.key: 2 * t.calls for t in find_tasks(alone, HOST) if not t.name.startswith(linear)}
    assert twice == once
    assert link_kernels(network, {}, HOST)


def test_a_batch_beyond_reason_is_refused() -> None:
    for images in (0, 1 << 20):
        with pytest.raises(UsageError, match="a batch has 1 to 256 images"):
            trace_network("shufflenet-g3-x0.5", batch=images)
