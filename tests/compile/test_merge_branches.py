"""Branches that are one grouped convolution: nodes counted, numbers compared, keys alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from stages import (
    QUICK,
    assert_module_is,
    assert_same,
    count,
    draw,
    imported,
    lowered,
    run,
    seeded,
    with_schedules,
)
from torch import Tensor, nn
from torch.nn import functional

from shuffledeploy.compiler.ir.attributes import kind_of
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.passes.graph.fold_batch_norm import fold_batch_norm
from shuffledeploy.compiler.passes.graph.merge_branches import merge_branches
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls
from shuffledeploy.compiler.tuning.records.recorded_schedules import kernel_key


def _conv(before: int, after: int, window: int = 1, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(before, after, window, 1, window // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after))


def _paths(number: int, *shape: int) -> nn.ModuleList:
    return nn.ModuleList(_conv(*shape) for _ in range(number))


def _added(paths: list[Tensor]) -> Tensor:
    y = paths[0]
    for path in paths[1:]:
        y = path + y
    return y


class ResNeXtBlock(nn.Module):
    """A block in the paper's forms (a), (b) and (c), the first with sums of several kinds."""

    def __init__(self, form: str, paths: int = 4, inner: int = 5, width: int = 12) -> None:
        super().__init__()
        self.form, wide = form, paths * inner
        self.stem = nn.Conv2d(3, width, 3)
        if form == "c":
            self.reduce, self.grouped = _conv(width, wide), _conv(wide, wide, 3, paths)
        else:
            self.reduce, self.grouped = _paths(paths, width, inner), _paths(paths, inner, inner, 3)
        self.expand = _conv(wide, width) if form in "bc" else _paths(paths, inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        if self.form == "c":
            y = self.expand(torch.relu(self.grouped(torch.relu(self.reduce(x)))))
            return torch.relu(y + x).mean((2, 3))
        paths = [
            torch.relu(grouped(torch.relu(reduce(x))))
            for reduce, grouped in zip(self.reduce, self.grouped, strict=True)
        ]
        if self.form == "b":
            return torch.relu(x + self.expand(torch.cat(paths, 1))).mean((2, 3))
        paths = [expand(path) for expand, path in zip(self.expand, paths, strict=True)]
        sums: dict[str, Callable[[], Tensor]] = {
            "a, sum": lambda: x + sum(paths),
            "a, stack": lambda: torch.stack(paths).sum(0) + x,
            "a, add": lambda: _added([x, *paths]),
        }
        return torch.relu(sums[self.form]()).mean((2, 3))


def _keys(network: nn.Module, *shape: int) -> list[str]:
    module = lowered(imported(network, *shape).module)
    functions = kernel_functions(module)
    assert all(map(kind_of, functions.values()))
    value = draw(*shape)
    assert_same(run(with_schedules(module), value.numpy(), target=QUICK), network, value)
    return [kernel_key(functions[name]) for _, name in kernel_calls(module)]


@pytest.mark.parametrize("form", ["a, sum", "a, stack", "a, add", "b"])
def test_the_three_forms_of_a_block_have_the_same_kernels(form: str) -> None:
    expected = _keys(seeded(ResNeXtBlock("c")), 1, 3, 9, 8)
    assert len(expected) == 5
    assert _keys(seeded(ResNeXtBlock(form)), 1, 3, 9, 8) == expected


class _Pieces(nn.Module):
    """Convolutions of pieces of a tensor, joined, the pieces cut in a way of the test's."""

    def __init__(self, cut: Callable[[Tensor], list[Tensor]], pieces: int, groups: int) -> None:
        super().__init__()
        self.cut = cut
        self.convs = nn.ModuleList(
            nn.Conv2d(12 // pieces, 24 // pieces, 3, padding=1, groups=groups)
            for _ in range(pieces)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = [conv(part) for conv, part in zip(self.convs, self.cut(x), strict=True)]
        parts = [functional.max_pool2d(torch.relu(part), 2) for part in parts]
        return torch.cat(parts, 1)


CUTS: dict[str, tuple[Callable[[Tensor], list[Tensor]], int, int]] = {
    "chunk": (lambda x: list(x.chunk(2, 1)), 2, 1),
    "split": (lambda x: list(x.split(4, 1)), 3, 2),
    "index": (lambda x: [x[:, 3 * i : 3 * i + 3] for i in range(4)], 4, 1),
    "narrow": (lambda x: [x.narrow(1, 6 * i, 6) for i in (1, 0)], 2, 1),
    "interleaved": (lambda x: [x[:, i::3] for i in range(3)], 3, 1),
    "depthwise": (lambda x: [x[:, i : i + 1] for i in range(12)], 12, 1),
    "view": (lambda x: list(x.view(1, 2, 6, *x.shape[2:]).unbind(1)), 2, 1),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_group_convolution_by_hand(cut: str) -> None:
    network = seeded(_Pieces(*CUTS[cut]))
    merged = merge_branches(fold_batch_norm(imported(network, 1, 12, 6, 4).module))
    after = count(merged)
    assert (after["nn.conv2d"], after["nn.max_pool2d"], after["concat"]) == (1, 1, 0)
    assert_module_is(lowered(imported(network, 1, 12, 6, 4).module), network, 1, 12, 6, 4)


class _Columns(nn.Module):
    """AlexNet's two columns: apart for two layers, then one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(3, 8, 3, 2) for _ in range(2))
        self.second = nn.ModuleList(nn.Conv2d(8, 12, 3, padding=1) for _ in range(2))
        self.third = nn.Conv2d(24, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        columns = [functional.max_pool2d(torch.relu(conv(x)), 3, 2) for conv in self.first]
        columns = [torch.relu(c(column)) for c, column in zip(self.second, columns, strict=True)]
        return self.third(torch.cat(columns, 1))


def test_two_columns() -> None:
    network = seeded(_Columns())
    merged = merge_branches(fold_batch_norm(imported(network, 2, 3, 25, 21).module))
    assert count(merged)["nn.conv2d"] == 3
    assert_module_is(merged, network, 2, 3, 25, 21)


class _Unlike(nn.Module):
    """Branches that are none: other windows, another's reader, half of a tensor, a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.three = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.read = nn.ModuleList(nn.Conv2d(6, 6, 1) for _ in range(2))
        self.pieces = nn.ModuleList(nn.Conv2d(2, 3, 1) for _ in range(2))
        self.shortcut, self.long = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        fire = torch.cat([self.one(x), self.three(x)], 1)
        left, right = (conv(x) for conv in self.read)
        half = torch.cat([conv(x[:, 2 * i : 2 * i + 2]) for i, conv in enumerate(self.pieces)], 1)
        long = self.shortcut(x) + self.long(torch.relu(self.one(x)))
        return fire, torch.cat([left, right], 1), left * 2, half, long


def test_other_branches_stay() -> None:
    network = seeded(_Unlike())
    before = fold_batch_norm(imported(network, 1, 6, 5, 4).module)
    after = merge_branches(before)
    assert count(after) == count(before)
    assert_module_is(after, network, 1, 6, 5, 4)
