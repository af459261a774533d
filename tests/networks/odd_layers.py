"""Layers that no network of the zoo has: recurrent, attending, transposed, of other types."""

from __future__ import annotations

from typing import Any

import torch
from odd_programs import Does, Odd, counts, does, layers
from torch import nn
from torch.nn import functional


class Last(nn.Module):
    """The last step of a recurrent network, and a layer on it."""

    def __init__(self, steps: nn.Module, width: int) -> None:
        super().__init__()
        self.steps, self.head = steps, nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.steps(x)[0][:, -1])


class Counting(nn.Module):
    """A buffer that each call changes, and an answer that may depend on it."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.reads = reads
        self.register_buffer("calls", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1.0)
        return x * self.calls if self.reads else x * 2.0


class Chosen(nn.Module):
    """One of two ways, by the values of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, self.a, lambda v: self.b(v).tanh(), (x,))


class UNet(nn.Module):
    """Down, up again by transposed convolutions, and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.up, self.last = nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(16, 4, 4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = torch.relu(self.down(x))
        return self.last(torch.cat([side, self.up(torch.relu(self.deep(side)))], 1))


class SelfAttention(nn.Module):
    """Multi-head attention over itself, with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.attention(x, x, x)


class Crossed(nn.Module):
    """A shuffled tensor beside one whose rows and columns are swapped, joined by channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = self.b(x).transpose(2, 3)
        return self.last(torch.cat([functional.channel_shuffle(self.a(x), 4), turned], 1))


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def _classifier() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def _image(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *parts)


def _plain_norm() -> nn.Module:
    return _image(nn.BatchNorm2d(8, track_running_stats=False))


def _norms() -> nn.Module:
    return _image(
        nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1), nn.InstanceNorm2d(8, affine=True),
        nn.LocalResponseNorm(3),
    )  # fmt: skip


def _batch() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ChannelShuffle(2),
        nn.Conv2d(4, 6, 1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def _two_ways() -> nn.Module:
    return Last(nn.GRU(5, 8, 2, batch_first=True, bidirectional=True), 16)


def _rows(x: torch.Tensor, a: nn.Module, b: nn.Module) -> torch.Tensor:
    return torch.cat([a(x[:, :4]), b(x[:, 4:])], 1)


def _changed(x: torch.Tensor) -> torch.Tensor:
    x.mul_(2.0)
    return x.sum(1)


def _named(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    return parts["left"].sum(1, keepdim=True) * parts["right"]


_LEFT, _RIGHT = torch.zeros(1, 4), torch.zeros(1, 3)
_PICTURE = torch.zeros(1, 3, 6, 6)

LAYERS: dict[str, Odd] = {
    "gru": layers(lambda: Last(nn.GRU(5, 8, batch_first=True), 8), 1, 3, 5),
    "gru_two_ways": layers(_two_ways, 1, 3, 5),
    "rnn": layers(lambda: Last(nn.RNN(5, 8, batch_first=True), 8), 1, 3, 5),
    "lstm": layers(lambda: Last(nn.LSTM(5, 8, 2, batch_first=True), 8), 1, 3, 5),
    "lstm_cell": layers(lambda: nn.LSTMCell(5, 8), 1, 5),
    "selu": layers(lambda: nn.Sequential(nn.Linear(8, 8), nn.SELU()), 1, 8),
    "log_sigmoid": layers(lambda: nn.Sequential(nn.Linear(8, 8), nn.LogSigmoid()), 1, 8),
    "prelu": layers(lambda: _image(nn.PReLU(8), nn.Conv2d(8, 4, 1), nn.PReLU()), 1, 3, 6, 6),
    "layer_norm_image": layers(lambda: _image(nn.LayerNorm([8, 6, 6])), 1, 3, 6, 6),
    "norms": layers(_norms, 1, 3, 8, 8),
    "rms_norm": layers(lambda: nn.Sequential(nn.Linear(8, 8), nn.RMSNorm(8)), 1, 4, 8),
    "norm_without_statistics": layers(_plain_norm, 1, 3, 6, 6),
    "pool_divisor": layers(lambda: _image(nn.AvgPool2d(2, divisor_override=3)), 1, 3, 8, 8),
    "unet": layers(UNet, 1, 3, 16, 16),
    "transposed_1d": layers(lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), 1, 4, 7),
    "transposed_grouped": layers(
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, dilation=2), 1, 4, 7, 7
    ),
    "volumes": layers(
        lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.MaxPool3d(2), nn.ConvTranspose3d(4, 2, 2)),
        1, 2, 6, 6, 6,
    ),
    "attention": layers(SelfAttention, 1, 5, 16),
    "transformer_encoder": layers(_encoder, 1, 5, 16),
    "transformer_decoder": Odd(
        lambda: nn.TransformerDecoderLayer(16, 4, 32, batch_first=True),
        (torch.zeros(1, 5, 16), torch.zeros(1, 7, 16)),
    ),
    "causal_attention": does(
        lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True), 1, 2, 5, 8
    ),
    "cond": layers(Chosen, 1, 4),
    "crossed": layers(Crossed, 1, 3, 5, 5),
    "grouped_slices": layers(
        lambda: Does(_rows, a=nn.Conv2d(4, 6, 3), b=nn.Conv2d(4, 6, 3)), 1, 8, 6, 6
    ),
    "embedding": counts(lambda i, t: t(i).mean(1), 1, 5, t=nn.Embedding(7, 4)),
    "bilinear": Odd(lambda: nn.Bilinear(3, 4, 5), (_RIGHT, _LEFT)),
    "dict_input": Odd(lambda: Does(_named), ({"left": _LEFT, "right": _RIGHT},)),
    "keyword_inputs": Odd(lambda: Does(lambda x, scale: x * scale), (_LEFT,), {"scale": _LEFT}),
    "list_input": Odd(lambda: Does(lambda parts: torch.cat(parts, 1) * 2), ([_LEFT, _RIGHT],)),
    "identity": layers(nn.Identity, 1, 4),
    "flatten": layers(nn.Flatten, 1, 3, 4, 4),
    "input_and_more": does(lambda x: (x, x + 1, x), 1, 4),
    "double": Odd(lambda: _classifier().double(), (_PICTURE.double(),)),
    "changes_input": does(_changed, 1, 4),
    "changes_unread_buffer": layers(lambda: Counting(reads=False), 1, 4),
    "no_batch": layers(lambda: nn.Conv2d(3, 4, 3), 3, 6, 6),
    "batch_of_three": layers(_batch, 3, 3, 6, 6),
    "shared_weights": layers(
        lambda: nn.Sequential(*[nn.Conv2d(4, 4, 3, 1, 1)] * 2, nn.ReLU()), 1, 4, 6, 6
    ),
    # Refused by name.
    "half": Odd(lambda: _classifier().half(), (_PICTURE.half(),)),
    "bfloat16": Odd(lambda: _classifier().bfloat16(), (_PICTURE.bfloat16(),)),
    "changes_buffer": layers(lambda: Counting(reads=True), 1, 4),
    "empty_input": does(lambda x: torch.cat([x, torch.ones(1, 3)], 1), 1, 0),
    "embedding_bag": counts(lambda i, t: t(i), 2, 5, t=nn.EmbeddingBag(7, 4)),
}  # fmt: skip
