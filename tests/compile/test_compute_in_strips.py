"""Layers computed strip by strip: nodes counted, numbers compared."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from stages import (
    HOST,
    QUICK,
    assert_same,
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
from test_random_networks import Drawn
from torch import nn
from torch.nn import functional
from tvm import relax

from compile.bundle import load_bundle
from compile.kernels.schedules import scheduled
from compile.network import choose_schedules, lower, write_bundle
from compile.passes.compute_in_strips import compute_in_strips
from compile.passes.expose_intermediates import INTERMEDIATES, expose_intermediates
from compile.passes.graph import called_kernel
from compile.passes.inspection import kernel_functions
from compile.program import trace
from compile.strips.plan import Layer, Move, Plan, Source, overwrites_unread, plan_strips
from compile.strips.ranged import ranged, rows_read

# So small that tensors of a few kilobytes go by strips.
SMALL = 8192


class Units(nn.Module):
    """A stem, two units with a residual and a shuffle, one of stride 2 beside a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.reduce = nn.ModuleList(nn.Conv2d(12, 6, 1, groups=3) for _ in range(3))
        self.depthwise = nn.ModuleList(
            nn.Conv2d(6, 6, 3, stride, 1, groups=6) for stride in (1, 1, 2)
        )
        self.expand = nn.ModuleList(nn.Conv2d(6, 12, 1, groups=3) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        for reduce, depthwise, expand in zip(self.reduce, self.depthwise, self.expand, strict=True):
            y = functional.channel_shuffle(torch.relu(reduce(x)), 3)
            y = expand(depthwise(y))
            small = y.shape[2] < x.shape[2]
            beside = functional.avg_pool2d(x, 3, 2, 1) if small else x
            x = torch.relu(torch.cat([beside, y], 1) if small else x + y)
        return x.mean((2, 3))


def in_strips(
    network: nn.Module, *shape: int, cache: int = SMALL
) -> tuple[tvm.IRModule, tvm.IRModule, list[tuple[str, tuple[str, ...]]]]:
    """Lower a network; give it with whole layers, and by strips with their groups."""
    module = lowered(imported(network, *shape).module)
    layers = expose_intermediates(with_schedules(module))
    strips, groups = compute_in_strips(layers, kernel_functions(module), cache)
    return layers, strips, groups


def calls(module: tvm.IRModule) -> list[str]:
    """Names of what the entry function calls."""
    names = [called_kernel(value) for _, value in bindings_of(module)]
    return [name for name in names if name is not None]


@pytest.fixture(scope="module")
def units() -> nn.Module:
    """Give a network whose tensors are large for `SMALL`."""
    return seeded(Units())


def test_neighbours_become_one_call_each(units: nn.Module) -> None:
    layers, strips, groups = in_strips(units, 1, 3, 57, 45)
    assert groups
    assert all(len(kernels) > 1 for _, kernels in groups)
    of = dict(groups)
    called = [k for name in calls(strips) for k in of.get(name, (name,))]
    assert [name for name in calls(strips) if name in of] == [name for name, _ in groups]
    assert called == calls(layers)
    assert len(calls(strips)) <= len(calls(layers)) - len(groups)


def test_strips_answer_as_layers_do_bit_for_bit(units: nn.Module) -> None:
    value = draw(1, 3, 57, 45)
    layers, strips, _ = in_strips(units, 1, 3, 57, 45)
    expected, actual = (run(m, value.numpy(), target=HOST) for m in (layers, strips))
    np.testing.assert_array_equal(actual[0], expected[0])
    assert_same(actual, units, value)


def test_sums_are_written_over_what_comes_from_outside(units: nn.Module) -> None:
    """The caches of these networks end a group between a residual and its sum."""
    value = draw(1, 3, 57, 45)
    over = 0
    for cache in (SMALL // 2, SMALL, 2 * SMALL):
        layers, strips, groups = in_strips(units, 1, 3, 57, 45, cache=cache)
        assert groups
        names = [operator(call) for _, call in bindings_of(strips)]
        over += names.count("relax.call_tir_inplace")
        expected, actual = (run(m, value.numpy(), target=HOST) for m in (layers, strips))
        np.testing.assert_array_equal(actual[0], expected[0])
    assert over


def test_what_each_layer_writes_can_still_be_asked(units: nn.Module) -> None:
    value = draw(1, 3, 57, 45).numpy()
    layers, strips, _ = in_strips(units, 1, 3, 57, 45)
    expected, actual = (run(m, value, entry=INTERMEDIATES) for m in (layers, strips))
    assert len(actual) == len(calls(layers))
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


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
        assert groups == []
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


def test_the_rows_that_a_kernel_reads(units: nn.Module) -> None:
    functions = kernel_functions(lowered(imported(units, 1, 3, 57, 45).module))
    (name,) = [name for name in functions if name.startswith("depthwise3x3_6_15x12")]
    width = 12
    spans = [rows_read(functions[name], 0, (r * width, (r + 2) * width)) for r in (0, 5, 13)]
    assert spans == [(0, 3), (4, 8), (12, 15)]


@dataclasses.dataclass(frozen=True)
class Sliding:
    """A layer of the plan tests: what its kernel reads of each source."""

    source: int
    kernel: int
    stride: int
    before: int

    def rows(self, row: int, height: int) -> range:
        """Rows of a source of that height that one row reads."""
        first = row * self.stride - self.before
        return range(max(0, first), min(height, first + self.kernel))


def drawn_layers(seed: int, strips: int) -> tuple[list[Layer], list[list[Sliding]]]:
    """Draw a group of layers, each reading one or two of those before it, some written over one."""
    rng = random.Random(seed)
    width = rng.randint(2, 9)
    layers = [_layer(rng, rng.randint(9, 40), width, (), False)]
    if rng.random() < 0.3:
        first = layers[0]
        layers = [dataclasses.replace(first, units=first.height, unit=width, kept=True, given=True)]
    reads: list[list[Sliding]] = [[]]
    for index in range(1, rng.randint(3, 8)):
        source = rng.choice([index - 1, rng.randrange(index)])
        kernel, stride = rng.choice([(1, 1), (1, 1), (3, 1), (5, 1), (3, 2)])
        own = [Sliding(source, kernel, stride, kernel // 2)]
        height = (layers[source].height - 1) // stride + 1
        equal = [i for i in range(index) if layers[i].height == height and i != source]
        if equal and rng.random() < 0.5:
            own.append(Sliding(rng.choice(equal), 1, 1, 0))
        sources = tuple(_source(layers[one.source].height, height, one) for one in own)
        layers.append(_layer(rng, height, width, sources, rng.random() < 0.2))
        reads.append(own)
    return _some_over_others(layers, reads, strips), reads


def _some_over_others(layers: list[Layer], reads: list[list[Sliding]], strips: int) -> list[Layer]:
    """Let layers be written over those that only they read in the end, where nothing gets lost."""
    for index, own in enumerate(reads):
        below = own[-1].source if own else -1
        later = {sliding.source for after in reads[index + 1 :] for sliding in after}
        fits = bool(own) and own[-1].kernel == 1 and len({s.source for s in own}) == len(own)
        if fits and below not in later and (layers[below].given or not layers[below].kept):
            over = dataclasses.replace(layers[index], row_bytes=layers[below].row_bytes, over=below)
            tried = [*layers[:index], over, *layers[index + 1 :]]
            layers = layers if overwrites_unread(tried, strips) else tried
    return layers


def _layer(
    rng: random.Random, height: int, width: int, sources: tuple[Source, ...], kept: bool
) -> Layer:
    unit = rng.randint(1, 2 * width)
    row_bytes = 4 * width * rng.choice([1, 3, 8, 16])
    return Layer(height, width, row_bytes, unit, -(-height * width // unit), sources, kept)


def _source(rows: int, height: int, sliding: Sliding) -> Source:
    spans = [sliding.rows(row, rows) for row in range(height)]
    needs = [0, *np.maximum.accumulate([span.stop for span in spans]).tolist()]
    keeps = [*np.minimum.accumulate([span.start for span in spans[::-1]])[::-1].tolist(), rows]
    return Source(sliding.source, tuple(needs), tuple(keeps))


@pytest.mark.parametrize("strips", [1, 3, 50])
@pytest.mark.parametrize("seed", range(40))
def test_a_plan_finds_every_row_where_it_was_put(seed: int, strips: int) -> None:
    layers, reads = drawn_layers(seed, strips)
    plan = plan_strips(layers, strips)
    # Of each place and row there: whose row it is, and which.
    memory = {
        (index, row): (index, row)
        for index, layer in enumerate(layers)
        for row in range(layer.height if layer.given else 0)
    }
    done = [layer.units if layer.given else 0 for layer in layers]
    for step in plan.steps:
        if isinstance(step, Move):
            moved = [memory[step.layer, step.by + slot] for slot in range(step.rows)]
            memory |= {(step.layer, slot): row for slot, row in enumerate(moved)}
            continue
        index, layer = step.run.layer, layers[step.run.layer]
        assert step.run.first == done[index] < step.run.last
        done[index] = step.run.last
        rows = range(layer.rows_done(step.run.first), layer.rows_begun(step.run.last))
        for sliding in reads[index]:
            source = layers[sliding.source]
            wanted = {r for row in rows for r in sliding.rows(row, source.height)}
            assert max(wanted) < source.rows_done(done[sliding.source])
            for row in wanted:
                slot = plan.places[sliding.source], row - step.tops[sliding.source]
                begun = row == rows[0] and layer.over == sliding.source
                assert memory[slot] in {(sliding.source, row), (index if begun else None, row)}
        for row in rows:
            slot = row - step.tops[index]
            place = plan.places[index]
            assert 0 <= slot < (plan.windows[place].rows or layers[place].height)
            memory[place, slot] = index, row
    assert done == [layer.units for layer in layers]
    assert_windows_are_apart(layers, plan)


def test_layers_are_written_over_others() -> None:
    drawn = [drawn_layers(seed, 3)[0] for seed in range(40)]
    over = [(one, layer) for layers in drawn for one, layer in enumerate(layers) if layer.over]
    given = [layers for layers in drawn if any(layer.over == 0 for layer in layers[1:])]
    assert len(over) > 5
    assert any(layers[0].given for layers in given)


def test_nothing_is_overwritten_that_is_still_read() -> None:
    rows = tuple(range(21))
    below = (0, *(min(20, row + 2) for row in range(20)))
    first = Layer(20, 4, 64, 4, 20, (), False)
    slow = Layer(20, 4, 64, 4, 20, (Source(0, below, rows),), True)
    total = Layer(20, 4, 64, 4, 20, (Source(0, rows, rows),), True, 0)
    assert overwrites_unread([first, slow, total], 5) == {2}
    after = dataclasses.replace(total, sources=(*total.sources, Source(1, rows, rows)))
    assert overwrites_unread([first, slow, after], 5) == set()


def assert_windows_are_apart(layers: list[Layer], plan: Plan) -> None:
    """Check that windows are aligned, in the workspace, and share no byte."""
    end, starts = 0, list[int]()
    for layer, window in zip(layers, plan.windows, strict=True):
        assert window.start >= end
        assert window.start % 64 == 0
        own = plan.places[len(starts)] == len(starts) and not layer.kept
        assert (window.rows > 0) == own
        starts.append(window.start)
        end = window.start + window.rows * layer.row_bytes
    assert end <= plan.workspace


def test_many_strips_need_less_memory_than_layers() -> None:
    keeps = tuple(range(101))
    chain = [Layer(100, 10, 640, 10, 100, (), False)]
    chain += [Layer(100, 10, 640, 10, 100, (Source(i, keeps, keeps),), False) for i in range(5)]
    assert plan_strips(chain, 50).workspace < plan_strips(chain, 1).workspace // 10
