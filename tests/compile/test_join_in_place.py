"""Parts of a concatenation, written where they belong: nodes counted, numbers compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
import tvm
from stages import (
    assert_same,
    assert_same_bits,
    draw,
    imported,
    lowered,
    run,
    seeded,
    with_schedules,
)
from strip_networks import SMALL, Units, calls
from torch import Tensor, nn
from torch.nn import functional

from shuffledeploy.compiler.ir.attributes import kernel_of
from shuffledeploy.compiler.ir.graph import bindings_of, operator
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.library_facts import joined_in_place, strip_calls
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.expose_intermediates import (
    INTERMEDIATES,
    expose_intermediates,
)
from shuffledeploy.compiler.passes.memory.join_in_place import join_in_place
from shuffledeploy.compiler.passes.memory.residual_in_place import residual_in_place

SHAPE = (1, 12, 15, 10)

Answer: TypeAlias = Tensor | list[Tensor]


class _Join(nn.Module):
    """Joins something of a tensor, of a convolution of it, of a pool and another convolution."""

    def __init__(self, join: Case) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 32, 1)
        self.first, self.second = nn.Conv2d(12, 20, 1), nn.Conv2d(12, 7, 3, padding=1)
        self.third = nn.Conv2d(39, 6, 1, groups=3)
        self._join = join

    def forward(self, image: Tensor) -> Answer:
        stem = self.stem(image)
        pool = functional.max_pool2d(stem, 3, 1, 1)
        return self._join(self, stem, self.first(stem), pool, torch.relu(self.second(stem)))


#: What joins, given the network and its stem, and what stands beside it: `first`, `pool`, `second`.
Case = Callable[[_Join, Tensor, Tensor, Tensor, Tensor], Answer]


def three_parts(
    network: _Join, stem: Tensor, first: Tensor, pool: Tensor, second: Tensor
) -> Tensor:
    """Join three layers' answers in the order in which they are computed."""
    return torch.relu(torch.cat([first, pool, second], 1))


def later_first(
    network: _Join, stem: Tensor, first: Tensor, pool: Tensor, second: Tensor
) -> Tensor:
    """Put what is computed last in front."""
    return torch.cat([second, pool, first], 1) - 0.5


def shuffled(network: _Join, stem: Tensor, first: Tensor, pool: Tensor, second: Tensor) -> Tensor:
    """Shuffle what was joined, before a grouped convolution reads it."""
    whole = torch.relu(torch.cat([first, pool, second], 1))
    return network.third(functional.channel_shuffle(whole, 3))


def twice(network: _Join, stem: Tensor, first: Tensor, pool: Tensor, second: Tensor) -> Tensor:
    """Read a join of one part in a layer that is joined itself."""
    alone = network.first(torch.relu(torch.cat([pool], 1)))
    return torch.cat([alone, network.second(pool), functional.relu6(first)], 1)


def in_another_order(
    network: _Join, stem: Tensor, first: Tensor, pool: Tensor, second: Tensor
) -> Tensor:
    """Shuffle a part before it is joined."""
    return torch.relu(torch.cat([functional.channel_shuffle(first, 4), pool], 1))


def nested(network: _Join, stem: Tensor, first: Tensor, pool: Tensor, second: Tensor) -> Tensor:
    """Join a join."""
    inner = torch.relu(torch.cat([first, second], 1))
    return torch.cat([inner, pool], 1)


def read_elsewhere(
    network: _Join, stem: Tensor, first: Tensor, pool: Tensor, second: Tensor
) -> list[Tensor]:
    """Give a part away beside the join."""
    return [torch.cat([first, pool], 1), first]


def gathered(network: _Join, stem: Tensor, first: Tensor, pool: Tensor, second: Tensor) -> Tensor:
    """Choose channels of a part, one of them twice."""
    return torch.relu(torch.cat([first[:, [3, 1, 4, 1]], pool], 1))


def added_to_another(
    network: _Join, stem: Tensor, first: Tensor, pool: Tensor, second: Tensor
) -> Tensor:
    """Add another layer to the join."""
    return torch.relu(torch.cat([first, pool], 1) + network.wide(stem))


def joined_to_its_input(
    network: _Join, stem: Tensor, first: Tensor, pool: Tensor, second: Tensor
) -> Tensor:
    """Join a layer's answer to what that layer reads."""
    beside = network.first(stem).mean((2, 3), True)[:, :1]
    return torch.cat([stem, first], 1) + beside


JOINED: tuple[Case, ...] = (
    three_parts, later_first, shuffled, twice, in_another_order, nested,
)  # fmt: skip
LEFT: tuple[Case, ...] = (read_elsewhere, gathered, added_to_another, joined_to_its_input)


def name_of(case: Case) -> str:
    """Return the name of a case in the report."""
    return case.__name__


def joined(network: nn.Module, *shape: int) -> tuple[tvm.IRModule, tvm.IRModule]:
    """Lower a network; give it before and after."""
    module = lowered(imported(network, *shape).module)
    before = expose_intermediates(with_schedules(module))
    return before, join_in_place(before, kernel_functions(module))


def parts(module: tvm.IRModule) -> dict[str, str]:
    """Of each kernel that writes in another's place, the one whose work it does."""
    functions = kernel_functions(module).items()
    return {name: of for name, f in functions if (of := kernel_of(f, name)) != name}


@pytest.mark.parametrize("case", JOINED, ids=name_of)
def test_concatenations_are_not_called(case: Case) -> None:
    network = seeded(_Join(case))
    before, after = joined(network, *SHAPE)
    names = joined_in_place(after)
    assert names
    left = [kernel for kernel in calls(before) if kernel.startswith("concat")]
    assert all(left.count(kernel) >= names.count(kernel) for kernel in names)
    assert len(calls(after)) == len(calls(before)) - len(names)
    of = parts(after)
    assert sum(kernel in of for kernel in calls(after)) >= 2 * len(names)
    assert set(of.values()) <= set(calls(before))
    value = draw(*SHAPE)
    for entry in ("main", INTERMEDIATES):
        assert_same_bits(before, after, value.numpy(), entry=entry)
    assert_same(run(after, value.numpy()), network, value)


@pytest.mark.parametrize("case", LEFT, ids=name_of)
def test_what_cannot_be_written_in_place_stays(case: Case) -> None:
    network = seeded(_Join(case))
    before, after = joined(network, *SHAPE)
    assert after.same_as(before)
    assert joined_in_place(after) == ()
    assert any(kernel.startswith("concat") for kernel in calls(before))


@pytest.mark.parametrize("cache", [SMALL // 2, SMALL, 2 * SMALL])
def test_parts_by_strips_and_sums_over_what_was_joined(cache: int) -> None:
    network, shape = seeded(Units()), (1, 3, 57, 45)
    before, after = joined(network, *shape)
    assert len(joined_in_place(after)) == 1
    functions = kernel_functions(lowered(imported(network, *shape).module))
    strips = compute_in_strips(after, functions, cache)
    inside = {kernel for group in strip_calls(strips) for kernel in group.kernels}
    assert inside & set(parts(after).values())
    done = residual_in_place(strips)
    assert set(parts(done).values()) <= set(functions)
    assert "relax.call_tir_inplace" in [operator(call) for _, call in bindings_of(done)]
    assert_same_bits(before, done, draw(*shape).numpy())
