"""Attentions are one kernel each, which reads and writes where strides say: counted, compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernels_of_kind import assert_a_record_fits, called_of_kind, with_form
from stages import (
    assert_module_is,
    assert_same,
    draw,
    imported,
    lowered,
    run,
    seeded,
    with_schedules,
)
from torch import Tensor, nn
from torch.nn import functional
from tvm import relax

from shuffledeploy.compiler.ir.attributes import ATTENTION
from shuffledeploy.compiler.ir.graph import Array, constant_of, evaluated
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.row_blocks import MOST_ROWS, rows_of_block
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.kernels.strided import Strided
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.strided_views import strided
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.targets import find_target

CORES = [Core(16, 32), Core(8, 16), Core(4, 32)]


class Heads(nn.Module):
    """Self-attention as timm writes it: queries, keys and values of one linear layer."""

    def __init__(self, channels: int = 24, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.last = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        images, tokens, channels = x.shape
        parts = self.qkv(x).reshape(images, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        x = functional.scaled_dot_product_attention(q, k, v)
        return self.last(x.transpose(1, 2).reshape(images, tokens, channels))


class Biased(nn.Module):
    """Attention as LeViT writes it: values wider than keys, a number is added for each offset."""

    def __init__(self, tokens: int, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.qkv = heads, nn.Linear(16, heads * (4 + 4 + 7))
        generator = torch.Generator().manual_seed(5)
        self.added = nn.Parameter(torch.randn(heads, tokens, generator=generator))
        places = torch.arange(tokens)
        self.register_buffer("offsets", (places[None] - places[:, None]).abs())

    def forward(self, x: Tensor) -> Tensor:
        images, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(images, tokens, self.heads, -1).split([4, 4, 7], dim=3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        scores = q @ k * 0.5 + self.added[:, self.offsets]
        return (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(images, tokens, -1)


class Masked(nn.Module):
    """Rows of scores of which none is above minus infinity give zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]]))

    def forward(self, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(x, x * 2.0, x, attn_mask=self.mask)


class Shown(nn.Module):
    """The shares are an answer, too: they have to stand in memory."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shares = (x @ x.transpose(1, 2)).softmax(-1)
        return shares @ x, shares


def test_no_slice_transposition_or_softmax_is_left() -> None:
    module = lowered(imported(seeded(Heads()), 1, 19, 24).module)
    names = [name for _, name in kernel_calls(module)]
    assert names == ["conv1x1_24x72_19x1", "attention_2x19x19x12", "conv1x1_24x24_19x1"]
    others = ["fuse_attention", "lower_batched_products"]
    before = lowered(imported(seeded(Heads()), 1, 19, 24).module, without=others)
    assert len(kernel_calls(before)) > len(names) + 6


@pytest.mark.parametrize("core", CORES, ids=lambda core: f"{core.lanes}-lanes")
@pytest.mark.parametrize(
    ("network", "shape"),
    [(Heads(), (1, 19, 24)), (Heads(heads=3), (3, 33, 24)), (Biased(21), (2, 21, 16))],
    ids=["heads", "images", "biased"],
)
def test_answers_are_those_of_pytorch(
    network: nn.Module, shape: tuple[int, ...], core: Core
) -> None:
    module = lowered(imported(seeded(network), *shape).module, core)
    assert len(called_of_kind(module, ATTENTION)) == 1
    assert_module_is(with_schedules(module, core), network, *shape)


def test_attentions_stay_float32_in_half_precision() -> None:
    target = find_target("cortex-a76").computing_in("float16")
    steps = steps_of(pipeline(target), Phase.GRAPH)
    module = run_steps(imported(seeded(Heads()), 1, 19, 24).module, steps)
    kinds = [name.split("_")[0].rstrip("0123456789") for _, name in kernel_calls(module)]
    # A cast at either border, and around the attention.
    assert kinds == ["cast", "conv1x", "cast", "attention", "cast", "conv1x", "cast"]


def test_parts_of_a_split_and_offsets_by_a_table_cost_no_kernel() -> None:
    module = lowered(imported(seeded(Biased(21)), 2, 21, 16).module)
    names = [name for _, name in kernel_calls(module)]
    assert names == ["conv1x1_16x45_42x1", "attention_6x21x21x4"]


def test_what_is_taken_of_a_constant_is_one_where_no_index_is_outside() -> None:
    table = relax.const(np.arange(6, dtype=np.float32).reshape(2, 3))
    within = evaluated(relax.op.take(table, relax.const([[2, 0]], "int64"), axis=1))
    np.testing.assert_array_equal(constant_of(within), [[[2, 0]], [[5, 3]]])
    for outside in ([[3]], [[-1]]):
        taken = relax.op.take(table, relax.const(outside, "int64"), axis=1)
        assert evaluated(taken) is taken


def test_rows_of_minus_infinity_give_zeros() -> None:
    network, value = Masked(), draw(1, 3, 2, 8)
    module = lowered(imported(network, 1, 3, 2, 8).module)
    assert len(called_of_kind(module, ATTENTION)) == 1
    (answer,) = run(with_schedules(module), value.numpy())
    assert_same([answer], network, value)
    assert not answer[:, :, 1].any()


def test_shares_that_are_an_answer_stay() -> None:
    module = lowered(imported(Shown(), 1, 5, 24).module)
    assert not called_of_kind(module, ATTENTION)
    assert_module_is(with_schedules(module), Shown(), 1, 5, 24)


@pytest.mark.parametrize("core", CORES, ids=lambda core: f"{core.lanes}-lanes")
def test_every_form_computes_the_same_and_leaves_a_plain_trace(core: Core) -> None:
    network, shape = seeded(Heads(20, 2)), (1, 21, 20)
    module = lowered(imported(network, *shape).module, core)
    (name,) = called_of_kind(module, ATTENTION)
    function = kernel_functions(module)[name]
    found = forms(function, core)
    assert len(found) > 1
    value = draw(*shape)
    for number in range(len(found)):
        scheduled = with_schedules(module, core, with_form(ATTENTION, number))
        assert_same(run(scheduled, value.numpy()), network, value, what=f"form {number}, ")
    assert_a_record_fits(name, function, core)


@pytest.mark.smoke
@pytest.mark.parametrize("rows", [1, 2, 16, 49, 50, 64, 197, 256, 577])
def test_blocks_compute_few_rows_twice(rows: int) -> None:
    block = rows_of_block(rows)
    assert block <= min(rows, MOST_ROWS)
    assert -(-rows // block) * block <= rows * 1.05


@pytest.mark.smoke
def test_strides_are_those_of_regular_places() -> None:
    places: Array = np.arange(2 * 3 * 4 * 5).reshape(3, 2, 4, 5).transpose(1, 0, 3, 2)
    assert strided(places[:, :, 1:, ::2], 120) == Strided(120, 1, (20, 40, 1, 10))
    assert strided(np.broadcast_to(places[:1, :1], (2, 3, 5, 4)), 120) == Strided(
        120, 0, (0, 0, 1, 5)
    )
    assert strided(places[:, :, [0, 1, 3]], 120) is None
