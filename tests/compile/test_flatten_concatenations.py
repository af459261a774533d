"""Concatenations read the parts of others where that leaves these to a norm: counted, compared."""

from __future__ import annotations

import torch
from stages import assert_module_is, count, imported, lowered, seeded, with_schedules
from torch import Tensor, nn

from shuffledeploy.compiler.ir.attributes import JOINED, kind_of
from shuffledeploy.compiler.ir.graph import bindings_of, operator
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.passes.graph.choose_layouts import choose_layouts
from shuffledeploy.compiler.passes.graph.flatten_concatenations import flatten_concatenations
from shuffledeploy.compiler.passes.graph.fold_batch_norm import fold_batch_norm
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls

SHAPE = (1, 3, 6, 5)


class DenseLayers(nn.Module):
    """Four layers, each of which reads all before it behind a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * n) for n in range(5))
        self.layers = nn.ModuleList(nn.Conv2d(8 + 4 * n, 4, 3, padding=1) for n in range(4))
        self.last = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        *norms, last = self.norms
        for norm, layer in zip(norms, self.layers, strict=True):
            x = torch.cat([x, layer(torch.relu(norm(x)))], 1)
        return self.last(torch.relu(last(x))).mean((2, 3))


class ReadOtherwise(nn.Module):
    """Concatenations that two norms, a convolution or an answer read stay among the readers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.pools = nn.ModuleList(nn.MaxPool2d(3, 1, 1) for _ in range(3))
        self.conv = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        one, two, three = (torch.cat([x, pool(x)], 1) for pool in self.pools)
        joined = [
            torch.cat([one, torch.relu(one) * torch.sigmoid(one)], 1),
            torch.cat([two, self.conv(two)], 1),
            torch.cat([three, x], 1),
        ]
        return three, *joined


def _channels_last(module: nn.Module) -> object:
    return choose_layouts(fold_batch_norm(imported(seeded(module), *SHAPE).module))


def test_each_norm_is_the_epilogue_of_a_concatenation_of_all_parts() -> None:
    program = imported(seeded(DenseLayers()), *SHAPE)
    module = lowered(program.module)
    kinds = [kind_of(kernel_functions(module)[name]) for _, name in kernel_calls(module)]
    assert kinds.count(JOINED) == 4
    # A kernel is left of the norm before the first layer, which reads no concatenation.
    before = lowered(program.module, without=["flatten_concatenations"])
    assert len(kernel_calls(before)) - len(kinds) == 3
    assert_module_is(with_schedules(module), seeded(DenseLayers()), *SHAPE)


def test_parts_are_read_in_their_order() -> None:
    after = flatten_concatenations(_channels_last(DenseLayers()))
    joins = [value for _, value in bindings_of(after) if operator(value) == "relax.concat"]
    assert [len(value.args[0].fields) for value in joins] == [2, 3, 4, 5]


def test_what_others_read_as_well_is_left_in_memory() -> None:
    before = _channels_last(ReadOtherwise())
    assert flatten_concatenations(before) is before
    assert count(before)["concat"] == 6
