"""Layers computed strip by strip: nodes counted, numbers compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
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
    flat,
    imported,
    lowered,
    operator,
    run,
    seeded,
    with_schedules,
)
from strip_networks import SMALL, Units, calls
from torch import nn
from tvm import relax, tirx

from shuffledeploy.compiler.bundle.folder import load_bundle
from shuffledeploy.compiler.bundle.manifest_entries import StripCall
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.ir.attributes import JOINED, kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.ir.tir import MOST_SMALL, small_index
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.library_facts import strip_calls
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.expose_intermediates import (
    INTERMEDIATES,
    expose_intermediates,
)
from shuffledeploy.compiler.strips.ranged import ranged, rows_read


def in_strips(
    network: nn.Module, *shape: int, cache: int = SMALL
) -> tuple[tvm.IRModule, tvm.IRModule, tuple[StripCall, ...]]:
    """Lower a network; give it with whole layers, and by strips with their groups."""
    module = lowered(imported(network, *shape).module)
    layers = expose_intermediates(with_schedules(module))
    strips = compute_in_strips(layers, kernel_functions(module), cache)
    return layers, strips, strip_calls(strips)


@pytest.fixture(scope="module")
def units() -> nn.Module:
    """Give a network whose tensors are large for `SMALL`."""
    return seeded(Units())


def test_neighbours_become_one_call_each(units: nn.Module) -> None:
    layers, strips, groups = in_strips(units, 1, 3, 57, 45)
    assert groups
    assert all(len(group.kernels) > 1 for group in groups)
    of = {group.name: group.kernels for group in groups}
    called = [k for name in calls(strips) for k in of.get(name, (name,))]
    assert [name for name in calls(strips) if name in of] == [group.name for group in groups]
    assert called == calls(layers)
    assert len(calls(strips)) <= len(calls(layers)) - len(groups)


def test_strips_answer_as_layers_do_bit_for_bit(units: nn.Module) -> None:
    value = draw(1, 3, 57, 45)
    layers, strips, _ = in_strips(units, 1, 3, 57, 45)
    assert_same(assert_same_bits(layers, strips, value.numpy()), units, value)


def test_sums_are_written_over_what_comes_from_outside(units: nn.Module) -> None:
    """The caches of these networks end a group between a residual and its sum."""
    value = draw(1, 3, 57, 45)
    over = 0
    for cache in (SMALL // 2, SMALL, 2 * SMALL):
        layers, strips, groups = in_strips(units, 1, 3, 57, 45, cache=cache)
        assert groups
        names = [operator(call) for _, call in bindings_of(strips)]
        over += names.count("relax.call_tir_inplace")
        assert_same_bits(layers, strips, value.numpy())
    assert over


def test_what_each_layer_writes_can_still_be_asked(units: nn.Module) -> None:
    value = draw(1, 3, 57, 45).numpy()
    layers, strips, _ = in_strips(units, 1, 3, 57, 45)
    actual = assert_same_bits(layers, strips, value, entry=INTERMEDIATES, target=QUICK)
    assert len(actual) == len(calls(layers))


def test_a_bundle_says_what_goes_by_strips(units: nn.Module, tmp_path: Path) -> None:
    target = dataclasses.replace(QUICK, cache=SMALL)
    network = lower(trace(units, (1, 3, 57, 45)), target)
    chosen = choose_schedules(network, target, {})
    bundle = write_bundle(
        tmp_path / "units", network, chosen, target, network="units", normalisation=None, options={}
    )
    manifest = load_bundle(bundle.path).manifest
    assert manifest.strips
    assert len(manifest.joined_in_place) == 1
    assert manifest.kernel_calls == len(manifest.kernel_order) - 1
    work = {kernel.name: kernel.multiply_adds for kernel in manifest.called}
    for call in manifest.strips:
        assert set(call.kernels) <= set(manifest.kernel_order)
        assert work[call.name] == sum(work[kernel] for kernel in call.kernels)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(bundle.library)), tvm.cpu())
    for (value,), (expected,) in zip(
        bundle.reference_inputs(), bundle.reference_outputs(), strict=True
    ):
        (answer,) = flat(machine["main"](tvm.runtime.tensor(value)))
        np.testing.assert_allclose(answer.numpy(), expected, atol=1e-5)


def test_tensors_that_fit_the_cache_or_are_told_to_stay_layers(units: nn.Module) -> None:
    for target in (HOST, dataclasses.replace(HOST, cache=SMALL).with_whole_layers):
        layers, strips, groups = in_strips(units, 1, 3, 57, 45, cache=target.cache)
        assert groups == ()
        assert calls(strips) == calls(layers)


@pytest.mark.parametrize("seed", [1, 4, 7, 8, 9])
def test_a_drawn_network_by_strips(seed: int) -> None:
    network = seeded(Drawn(seed), seed)
    value = draw(1, 3, 160, 11)
    _, strips, groups = in_strips(network, 1, 3, 160, 11, cache=2 * SMALL)
    assert groups
    assert_same(run(strips, value.numpy(), target=QUICK), network, value)


def test_a_kernel_computes_a_range_of_its_pixels(units: nn.Module) -> None:
    module = lowered(imported(units, 1, 3, 57, 45).module)
    functions = kernel_functions(module)
    rests = []
    for name, function in functions.items():
        kernel = ranged(scheduled(function, HOST.core))
        if name.startswith(("mean", "linear")):
            assert kernel is None
            continue
        assert kernel is not None
        _, height, width, _ = (int(extent) for extent in function.params[-1].shape)
        assert kernel.units == -(-height * width // kernel.unit)
        rests.append(height * width % kernel.unit)
    assert any(rests)  # the numbers of such kernels are compared above


def test_the_indices_of_a_range_are_known_to_be_small(units: nn.Module) -> None:
    """LLVM folds what cannot wrap into addresses; of 65,537 steps nothing is known.

    A concatenation has a loop for each part, which stay plain.
    """
    kernels = kernel_functions(lowered(imported(units, 1, 3, 57, 45).module)).values()
    found = [ranged(scheduled(f, HOST.core)) for f in kernels if kind_of(f) != JOINED]
    texts = [kernel.function.script() for kernel in found if kernel is not None]
    assert texts
    assert all('T.Cast("int32", T.Cast("uint16", ' in text for text in texts)
    first = tirx.Var("first", "int32")
    assert small_index(first, MOST_SMALL + 2).same_as(first)


def test_the_rows_that_a_kernel_reads(units: nn.Module) -> None:
    functions = kernel_functions(lowered(imported(units, 1, 3, 57, 45).module))
    (name,) = [name for name in functions if name.startswith("depthwise3x3_6_15x12")]
    width = 12
    spans = [rows_read(functions[name], 0, (r * width, (r + 2) * width)) for r in (0, 5, 13)]
    assert spans == [(0, 3), (4, 8), (12, 15)]
