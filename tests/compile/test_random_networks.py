"""Networks drawn at random, and programs of other kinds, compiled for this machine."""

from __future__ import annotations

import random

import pytest
import torch
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

from shuffledeploy.compiler.network import lower
from shuffledeploy.model.errors import UsageError


class _Layer(nn.Module):
    """One drawn layer: a convolution and what stands around it."""

    def __init__(self, rng: random.Random, channels: int) -> None:
        super().__init__()
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        self.shuffle_groups = rng.choice(divisors)
        self.depthwise = rng.random() < 0.3
        groups = channels if self.depthwise else rng.choice(divisors)
        multiplier = rng.choice([1, 1, 2]) if self.depthwise else rng.randint(1, 5)
        self.out_channels = groups * multiplier
        kernel = (rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 3]))
        self.pad = [rng.randint(0, 1) for _ in range(4)] if rng.random() < 0.4 else []
        self.conv = nn.Conv2d(
            channels, self.out_channels, kernel, stride=rng.choice([1, 1, 1, 2]),
            padding=(kernel[0] // 2, kernel[1] // 2), dilation=rng.choice([1, 1, 2]),
            groups=groups, bias=rng.random() < 0.5,
        )  # fmt: skip
        self.norm = nn.BatchNorm2d(self.out_channels) if rng.random() < 0.5 else nn.Identity()
        self.activation = rng.choice(
            [nn.ReLU(), nn.ReLU6(), nn.Identity(), nn.Hardtanh(-0.5, 1.5), nn.SiLU()]
        )
        self.shuffle_after = rng.random() < 0.3
        self.residual = rng.random() < 0.5
        self.join = rng.choice(["", "", "concat", "split"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.shuffle_after:
            x = functional.channel_shuffle(x, self.shuffle_groups)
        y = self.norm(self.conv(functional.pad(x, self.pad) if self.pad else x))
        if self.residual and y.shape == x.shape:
            y = y + x
        y = self.activation(y)
        if self.shuffle_after:
            y = functional.channel_shuffle(y, y.shape[1])
        if self.join == "concat" and y.shape[2:] == x.shape[2:]:
            y = torch.relu(torch.cat([x, y], 1))
        elif self.join == "split" and y.shape[1] > 1:
            first, second = y.split([1, y.shape[1] - 1], 1)
            y = torch.cat([torch.sigmoid(second), first], 1)
        return y


class Drawn(nn.Module):
    """A stem, a few drawn layers with pools between, a classifier."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        channels = rng.choice([4, 6, 9, 10, 12])
        self.stem = nn.Conv2d(3, channels, 3, padding=rng.randint(0, 2))
        self.layers = nn.ModuleList()
        probe = torch.zeros(1, channels, 12, 11)
        for _ in range(rng.randint(2, 4)):
            layer = _Layer(rng, probe.shape[1]).eval()
            probe = layer(probe)
            self.layers.append(layer)
            if min(probe.shape[2:]) > 4 and rng.random() < 0.5:
                ceil, side = rng.random() < 0.5, rng.choice([2, 3])
                self.layers.append(
                    nn.MaxPool2d(side, 2, side // 2, ceil_mode=ceil)
                    if rng.random() < 0.5
                    else nn.AvgPool2d(side, 2, side // 2, ceil, rng.random() < 0.5)
                )
                probe = self.layers[-1](probe)
            if probe.shape[1] > 40:
                break
        self.pool = nn.AdaptiveAvgPool2d(rng.choice([1, 2, (1, 3)]))
        flat = self.pool(probe).flatten(1).shape[1]
        self.classifier = nn.Linear(flat, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.pool(x).flatten(1))


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


def test_a_batch_goes_tvms_own_way() -> None:
    network = seeded(Drawn(1))
    value = draw(2, 3, 12, 11)
    module = lowered(imported(network, 2, 3, 12, 11).module)
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


def test_double_precision_with_weights_is_refused() -> None:
    # TVM's importer takes the result of every product for float32.
    for layer, shape in ((nn.Conv2d(3, 4, 1), (1, 3, 4, 4)), (nn.Linear(3, 4), (1, 3))):
        value = draw(*shape, dtype=torch.float64)
        with pytest.raises(UsageError, match=r"TVM cannot import this program: .*float64"):
            lower(torch.export.export(layer.double(), (value,)), HOST)


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
