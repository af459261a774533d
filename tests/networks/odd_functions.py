"""Functions that no network of the zoo calls: sorting, indexing, statistics, resizing, types."""

from __future__ import annotations

from typing import Any

import torch
from odd_programs import Does, Odd, counts, does
from torch.nn import functional

Tensor = torch.Tensor


def _activations(x: Tensor) -> Tensor:
    return torch.cat([
        functional.celu(x, 0.5), functional.elu(x, 2.0), functional.logsigmoid(x),
        functional.mish(x), functional.softplus(x, 2.0, 1.0), functional.hardshrink(x),
        functional.softshrink(x), functional.tanhshrink(x), functional.threshold(x, 0.1, 0.3),
        functional.glu(x), functional.softsign(x), functional.gelu(x), functional.hardswish(x),
        functional.gelu(x, approximate="tanh"), functional.leaky_relu(x, 0.2),
    ], 1)  # fmt: skip


def _pools(x: Tensor) -> Tensor:
    ceiled = functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    uncounted = functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
    return torch.cat([ceiled, uncounted, functional.avg_pool2d(x, 3, 2, 1, True)], 1)


def _adaptive_pools(x: Tensor) -> Tensor:
    mean, largest = functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d
    return torch.cat([mean(x, (3, 5)), largest(x, (3, 5)), functional.lp_pool2d(x, 2.0, 2)], 1)


def _integers(i: Tensor) -> tuple[Tensor, ...]:
    return i // 2, i % 3, (i - 3) // 2, -i % 3, i / 2, i > 0, i * 0.5, i.sum(1), i**3


def _slots(x: Tensor) -> Tensor:
    y = torch.zeros(1, 6)
    y[:, 1:3] = x
    y[:, -1] = 5.0
    return y


def _counted_from_the_end(x: Tensor) -> Tensor:
    picked = (
        x[:, torch.tensor([-1, 0])].sum(1)
        + x[0, torch.tensor([1, -2]), torch.tensor([-1, 0])].sum()
    )
    return x[:, -1] + x[:, -3:-1].sum(1) + x.select(1, -2) + picked


def _gathered(x: Tensor) -> tuple[Tensor, ...]:
    return (
        x.gather(1, torch.tensor([[5, 0, 2]])), x.index_select(1, torch.tensor([0, 3])),
        x.take(torch.tensor([0, 4])), x.flip(1), x.roll(2, 1), x.repeat(2, 3), x.tile(2),
        x.repeat_interleave(2, 1), torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])),
    )  # fmt: skip


def _scattered(x: Tensor) -> tuple[Tensor, ...]:
    zeros, three, two = torch.zeros(1, 6), x[:, :3], x[0, :2]
    return (
        zeros.scatter(1, torch.tensor([[1, 0, 5]]), three),
        zeros.scatter_add(1, torch.tensor([[1, 1, 5]]), three),
        zeros[0].index_add(0, torch.tensor([1, 1]), two),
        zeros[0].index_put((torch.tensor([1, -3]),), two),
    )


def _statistics(x: Tensor) -> Tensor:
    return torch.stack([
        x.std(1), x.var(1), x.std(1, unbiased=False), x.var(1, correction=0), x.norm(dim=1),
        x.norm(1, 1), x.amax(1), x.amin(1), x.prod(1), x.logsumexp(1), x.max(1)[0], x.min(1)[0],
    ])  # fmt: skip


def _ranked(x: Tensor) -> tuple[Any, ...]:
    parts = x.median(1), x.max(1), x.min(1), x.kthvalue(2, 1), torch.topk(x, 3, largest=False)
    return (x.median(), *(tuple(part) for part in parts))


def _rounded(x: Tensor) -> Tensor:
    return torch.cat([
        (x * 3).round(), x.floor(), x.ceil(), x.trunc(), x.frac(), x % 0.7, torch.fmod(x, 0.7),
        torch.remainder(x, -0.7), x.sign(), x.clamp(-0.5, 0.5), x.clamp(max=0.1),
    ], 1)  # fmt: skip


def _elementary(x: Tensor) -> Tensor:
    return torch.cat([
        x.exp(), (x * x + 1).log(), x.abs().sqrt(), x.sin(), x.cos(), x.tan(), x.atan(), x.sinh(),
        x.erf(), x.expm1(), x.abs().log1p(), (x.abs() + 1).rsqrt(), x.abs() ** 1.7, x**3, 2.0**x,
        torch.atan2(x, x + 2), x.tanh().asin(), x.abs().log2(), x.square(), x.reciprocal(),
    ], 1)  # fmt: skip


def _compared(x: Tensor) -> tuple[Tensor, ...]:
    return (
        x > 0, (x > 0) & (x < 1), torch.where(x > 0, x, -x), x.masked_fill(x < 0, -1.0),
        (x > 0).any(1), (x > 0).all(1), torch.isnan(x), x.eq(x), torch.maximum(x, -x),
        (x > 0).sum(1),
    )  # fmt: skip


def _products(x: Tensor) -> tuple[Tensor, ...]:
    row = x[0, 0]
    return (
        torch.bmm(x, x.transpose(1, 2)), x[0] @ x[0].t(), row @ x[0, 1], x[0] @ row,
        torch.outer(row, x[0, 1]), torch.tril(x[0]), torch.triu(x[0], 1), x.diagonal(0, 1, 2),
        torch.einsum("bij,bkj->bik", x, x),
    )  # fmt: skip


def _resized(x: Tensor) -> Tensor:
    resize = functional.interpolate
    return torch.cat([
        resize(x, scale_factor=2.0), resize(x, (12, 10), mode="bilinear"),
        resize(x, (12, 10), mode="bilinear", align_corners=True),
        resize(x, (12, 10), mode="nearest-exact"), resize(x, (12, 10), mode="area"),
    ], 1)  # fmt: skip


def _shrunk(x: Tensor) -> Tensor:
    resize = functional.interpolate
    return torch.cat([resize(x, (5, 4)), resize(x, (5, 4), mode="bilinear")], 1)


def _padded(x: Tensor) -> Tensor:
    sides, pad = (1, 2, 0, 1), functional.pad
    return torch.cat([
        pad(x, sides), pad(x, sides, value=3.0), pad(x, sides, mode="reflect"),
        pad(x, sides, mode="replicate"), pad(x, sides, mode="circular"),
        pad(x, (2, 1, 2, -1), value=1.0),
    ], 1)  # fmt: skip


def _unfolded(x: Tensor) -> Tensor:
    return functional.fold(functional.unfold(x, 3, padding=1), (6, 5), 3, padding=1)


def _sampled(x: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(x, grid.tanh(), align_corners=False)


def _viewed(x: Tensor) -> tuple[Any, ...]:
    return (
        x.as_strided((2, 3), (6, 1)), x.unfold(1, 3, 2), x.view(3, 4).t().contiguous().view(-1),
        x.squeeze(), x.unsqueeze(-1).expand(1, 12, 3), x.movedim(0, 1), x.chunk(5, 1),
        x.split([5, 7], 1), x.unbind(1)[3], x.narrow(1, 2, 4),
    )  # fmt: skip


def _typed(x: Tensor) -> tuple[Tensor, ...]:
    return (
        (x * 5).to(torch.int32), (x * 5).long() + 1, (x > 0).float(), x.double(), x.half(),
        (x * 5).to(torch.int8), x.bool(),
    )  # fmt: skip


def _over_axes(x: Tensor) -> tuple[Tensor, ...]:
    return x.mean((0, 2)), x.sum((1, 2, 3)), x.amax((2, 3)), x.flatten(1).mean(), x.std((2, 3))


def _normal(x: Tensor) -> tuple[Tensor, ...]:
    return (
        x.softmax(1), x.log_softmax(-1), functional.softmin(x, 0), functional.normalize(x, dim=1),
        functional.cosine_similarity(x, x + 1, 1),
    )  # fmt: skip


_GRID = Odd(lambda: Does(_sampled), (torch.zeros(1, 3, 6, 5), torch.zeros(1, 4, 4, 2)))

FUNCTIONS: dict[str, Odd] = {
    "activations": does(_activations, 1, 8),
    "pools": does(_pools, 1, 4, 8, 8),
    "adaptive_pools": does(_adaptive_pools, 1, 4, 6, 10),
    "pools_of_rows": does(
        lambda x: functional.avg_pool1d(functional.max_pool1d(x, 2), 3), 1, 4, 16
    ),
    "argmax": does(lambda x: (x.argmax(1), x.argmin(1, keepdim=True)), 1, 9),
    "scalar_answers": does(lambda x: (x.argmax(), x.sum(), x.mean(), x.max()), 1, 8),
    "topk": does(lambda x: tuple(torch.topk(x, 3, -1)), 1, 9),
    "sort": does(lambda x: tuple(torch.sort(x, 1, descending=True)), 2, 37),
    "argsort": does(lambda x: torch.argsort(x, 0), 16, 3),
    "cumsum": does(lambda x: (x.cumsum(1), x.cumprod(0), (x > 0).cumsum(1)), 3, 9),
    "integer_arithmetic": counts(_integers, 1, 5),
    "one_hot": counts(lambda i: functional.one_hot(i, 5), 1, 4),
    "writes_slices": does(_slots, 1, 2),
    "negative_indices": does(_counted_from_the_end, 1, 6, 4),
    "gathered": does(_gathered, 1, 6),
    "scattered": does(_scattered, 1, 6),
    "statistics": does(_statistics, 1, 8),
    "ranked": does(_ranked, 1, 9),
    "rounded": does(_rounded, 1, 8),
    "elementary": does(_elementary, 1, 8),
    "compared": does(_compared, 1, 8),
    "products": does(_products, 1, 5, 4),
    "resized": does(_resized, 1, 3, 6, 5),
    "shrunk": does(_shrunk, 1, 3, 13, 11),
    "padded": does(_padded, 1, 3, 6, 5),
    "unfolded": does(_unfolded, 1, 3, 6, 5),
    "sampled": _GRID,
    "viewed": does(_viewed, 1, 12),
    "typed": does(_typed, 1, 8),
    "over_axes": does(_over_axes, 2, 3, 4, 5),
    "normal": does(_normal, 2, 8),
    "constant_answer": does(lambda x: torch.ones(1, 3), 1, 4),
    # Refused by name.
    "max_pool_indices": does(
        lambda x: functional.max_pool2d(x, 2, return_indices=True), 1, 4, 8, 8
    ),
    "cummax": does(lambda x: torch.cummax(x, 1)[0], 1, 9),
    "antialiased": does(
        lambda x: functional.interpolate(x, (5, 4), mode="bilinear", antialias=True), 1, 3, 13, 11
    ),
    "random": does(lambda x: x + torch.rand(1, 4), 1, 4),
    "bernoulli": does(lambda x: torch.bernoulli(x.sigmoid()), 1, 4),
    "nonzero": does(lambda x: x.nonzero(), 1, 8),
    "complex": does(lambda x: torch.fft.rfft(x).abs(), 1, 8),
    "determinant": does(torch.linalg.det, 2, 3, 3),
    "bfloat16_inside": does(lambda x: (x.bfloat16() * 2).float(), 1, 4),
}
