"""Networks drawn at random, and programs of other kinds, compiled for this machine."""

from __future__ import annotations

import random

import pytest
import torch
from drawn_networks import Drawn
from stages import (
    HOST,
    QUICK,
    assert_same,
    draw,
    imported,
    lowered,
    run,
    seeded,
    shuffle_kernels,
    with_schedules,
)
from torch import nn
from torch.nn import functional

from shuffledeploy.compiler.lowered_network import lower


@pytest.mark.parametrize("seed", range(12))
def test_a_drawn_network_agrees_with_pytorch(seed: int) -> None:
    network = seeded(Drawn(seed), seed)
    module = lowered(imported(network, 1, 3, 12, 11).module)
    value = draw(1, 3, 12, 11)
    target = HOST if seed < 2 else QUICK
    assert_same(run(with_schedules(module), value.numpy(), target=target), network, value)


class _Shuffled(nn.Module):
    """Drawn widths, groups and shuffles, every shuffle before a convolution."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        channels = 12
        self.stem, self.convs, self.groups = nn.Conv2d(3, channels, 3), nn.ModuleList(), []
        for _ in range(6):
            groups = rng.choice([g for g in (1, 2, 3, 4, 6) if channels % g == 0])
            width = rng.choice([12, 18, 24, 36])
            self.groups.append(rng.choice([g for g in (2, 3, 4, 6, 9) if channels % g == 0]))
            groups = groups if width % groups == 0 else 1
            self.convs.append(nn.Conv2d(channels, width, rng.choice([1, 3]), 1, 1, groups=groups))
            channels = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for conv, groups in zip(self.convs, self.groups, strict=True):
            x = conv(functional.channel_shuffle(torch.relu(x), groups))
        return x.mean((2, 3))


@pytest.mark.parametrize("seed", range(3))
def test_drawn_shuffles_before_convolutions_leave_no_kernel(seed: int) -> None:
    network = seeded(_Shuffled(seed), seed)
    module = lowered(imported(network, 1, 3, 6, 5).module)
    assert shuffle_kernels(module) == []
    value = draw(1, 3, 6, 5)
    assert_same(run(with_schedules(module), value.numpy()), network, value)


class _Attention(nn.Module):
    """A transformer's block, with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inside = nn.LayerNorm(16), nn.Linear(16, 48)
        self.outside, self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)
        mask = torch.full((5, 5), float("-inf")).triu(1)
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.reshape(1, 5, 4, 4).transpose(1, 2)
            for part in self.inside(self.norm(x)).chunk(3, 2)
        )
        weights = (q @ k.transpose(2, 3) / 2.0 + self.mask).softmax(-1)
        x = x + self.outside((weights @ v).transpose(1, 2).reshape(1, 5, 16))
        return x + self.down(functional.gelu(self.up(x)))


class _Perceptron(nn.Module):
    """Rows, a residual and batch norm without any image."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(9, 17), nn.Linear(17, 17), nn.BatchNorm1d(17)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x))
        return (self.norm(self.b(x)) + x).softmax(1)


def test_double_precision() -> None:
    network = seeded(nn.Sequential(nn.BatchNorm2d(3), nn.Softmax(1), nn.AvgPool2d(2))).double()
    value = draw(1, 3, 4, 4, dtype=torch.float64)
    module = lower(torch.export.export(network, (value,)), HOST).module
    assert_same(run(with_schedules(module), value.numpy()), network, value)


def test_double_precision_with_weights() -> None:
    # TVM's own importer takes the result of every product for float32.
    for layer, shape in ((nn.Conv2d(3, 4, 1), (1, 3, 4, 4)), (nn.Linear(3, 4), (1, 3))):
        value = draw(*shape, dtype=torch.float64)
        module = lower(torch.export.export(layer.double(), (value,)), HOST).module
        assert_same(run(with_schedules(module), value.numpy()), layer, value)


class _Line(nn.Module):
    """Convolutions in one dimension with a shuffle, and one in the other direction."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 6, 3), nn.Conv1d(6, 6, 1, groups=3)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x))
        x = self.b(x.reshape(1, 2, 3, -1).transpose(1, 2).reshape(1, 6, -1))
        return self.up(x.unsqueeze(2))


class _Integers(nn.Module):
    """Integer inputs look up rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.linear = nn.Embedding(2, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.rows(x).mean(1))


@pytest.mark.parametrize(
    ("network", "shape"),
    [(_Attention(), (1, 5, 16)), (_Perceptron(), (1, 9)), (_Perceptron(), (3, 9)),
     (_Line(), (1, 4, 8))],
)  # fmt: skip
def test_programs_of_other_kinds(network: nn.Module, shape: tuple[int, ...]) -> None:
    seeded(network)
    value = draw(*shape)
    module = lowered(imported(network, *shape).module)
    assert_same(run(with_schedules(module), value.numpy()), network, value)


def test_integer_inputs() -> None:
    network = seeded(_Integers())
    value = torch.tensor([[0, 1, 1, 0]])
    module = lower(torch.export.export(network, (value,)), HOST).module
    assert_same(run(with_schedules(module), value.numpy()), network, value)


def test_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(5, 4, 1)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
            joined = self.a(x) + self.b(y)
            return {"map": joined, "mean": joined.mean((2, 3))}

    network = seeded(Two())
    x, y = draw(1, 3, 4, 5), draw(1, 5, 4, 5)
    module = lower(torch.export.export(network, (x, y)), HOST).module
    answers = run(with_schedules(module), x.numpy(), y.numpy())
    expected = list(network(x, y).values())
    assert len(answers) == 2
    for ours, theirs in zip(answers, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=1e-5, rtol=1e-5)
