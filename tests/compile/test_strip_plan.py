"""Plans of strips, drawn: every row is where its readers look for it."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from shuffledeploy.compiler.strips.strip_plan import (
    Layer,
    Move,
    Source,
    StripPlan,
    overwrites_unread,
    plan_strips,
)


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


def assert_windows_are_apart(layers: list[Layer], plan: StripPlan) -> None:
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
