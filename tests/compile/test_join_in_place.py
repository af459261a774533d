"""Parts of a concatenation, written where they belong: nodes counted, numbers compared."""

from __future__ import annotations

from collections.abc import Callable

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
from torch import nn
from torch.nn import functional

from shuffledeploy.compiler.ir.attributes import kernel_of
from shuffledeploy.compiler.ir.graph import bindings_of, operator
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.network import joined_in_place, strip_calls
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.expose_intermediates import (
    INTERMEDIATES,
    expose_intermediates,
)
from shuffledeploy.compiler.passes.memory.join_in_place import join_in_place
from shuffledeploy.compiler.passes.memory.residual_in_place import residual_in_place

SHAPE = (1, 12, 15, 10)

Layer = Callable[[torch.Tensor], torch.Tensor]


class _Join(nn.Module):
    """Joins something of a tensor, of a convolution of it, of a pool and another convolution."""

    def __init__(self, forward: Callable[..., torch.Tensor | list[torch.Tensor]]) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 32, 1)
        self.first, self.second = nn.Conv2d(12, 20, 1), nn.Conv2d(12, 7, 3, padding=1)
        self.third = nn.Conv2d(39, 6, 1, groups=3)
        self._forward = forward

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        x = self.stem(image)
        pool = functional.max_pool2d(x, 3, 1, 1)
        return self._forward(self, x, self.first(x), pool, torch.relu(self.second(x)))


JOINED = {
    "three": lambda n, x, a, b, c: torch.relu(torch.cat([a, b, c], 1)),
    "later first": lambda n, x, a, b, c: torch.cat([c, b, a], 1) - 0.5,
    "shuffled": lambda n, x, a, b, c: n.third(
        functional.channel_shuffle(torch.relu(torch.cat([a, b, c], 1)), 3)
    ),
    "twice": lambda n, x, a, b, c: torch.cat(
        [n.first(torch.relu(torch.cat([b], 1))), n.second(b), functional.relu6(a)], 1
    ),
    "in another order": lambda n, x, a, b, c: torch.relu(
        torch.cat([functional.channel_shuffle(a, 4), b], 1)
    ),
    "nested": lambda n, x, a, b, c: torch.cat([torch.relu(torch.cat([a, c], 1)), b], 1),
}
LEFT = {
    "read elsewhere": lambda n, x, a, b, c: [torch.cat([a, b], 1), a],
    "gathered": lambda n, x, a, b, c: torch.relu(torch.cat([a[:, [3, 1, 4, 1]], b], 1)),
    "added to another": lambda n, x, a, b, c: torch.relu(torch.cat([a, b], 1) + n.wide(x)),
    "the input": lambda n, x, a, b, c: torch.cat([x, a], 1) + n.first(x).mean((2, 3), True)[:, :1],
}


def joined(network: nn.Module, *shape: int) -> tuple[tvm.IRModule, tvm.IRModule]:
    """Lower a network; give it before and after."""
    module = lowered(imported(network, *shape).module)
    before = expose_intermediates(with_schedules(module))
    return before, join_in_place(before, kernel_functions(module))


def parts(module: tvm.IRModule) -> dict[str, str]:
    """Of each kernel that writes in another's place, the one whose work it does."""
    functions = kernel_functions(module).items()
    return {name: of for name, f in functions if (of := kernel_of(f, name)) != name}


@pytest.mark.parametrize("name", JOINED)
def test_concatenations_are_not_called(name: str) -> None:
    network = seeded(_Join(JOINED[name]))
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


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_written_in_place_stays(name: str) -> None:
    network = seeded(_Join(LEFT[name]))
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
