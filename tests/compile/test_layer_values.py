"""Each kernel's tensor is found among PyTorch's by its numbers, whatever passes did to it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from stages import HOST, draw, seeded
from torch import Tensor, nn
from torch.nn import functional

from shuffledeploy.compiler.bundle.layer_samples import (
    LAYER_SAMPLES,
    ROWS,
    layer_rows,
    layer_sample,
)
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF
from shuffledeploy.compiler.layer_values import layers_of, standing_for
from shuffledeploy.compiler.lowered_network import Lowered, lower
from shuffledeploy.compiler.proof_arrays import unscheduled_writes

SHAPE = (1, 3, 18, 14)


class Layers(nn.Module):
    """A shuffle, a batch norm, a residual, a join, a pool and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.compress = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 24, 1, groups=3)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.norm = nn.BatchNorm2d(24)
        self.expand, self.classifier = nn.Conv2d(24, 12, 1, groups=3), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = functional.channel_shuffle(torch.relu(self.compress(x)), 3)
        y = torch.relu(self.expand(self.norm(self.depthwise(y))) + x)
        y = torch.cat([functional.avg_pool2d(y, 3, 2, 1), functional.max_pool2d(y, 3, 2, 1)], 1)
        return self.classifier(y.mean((2, 3)))


def _lowered(precision: str) -> Lowered:
    target = dataclasses.replace(HOST, precision=precision)
    return lower(trace(seeded(Layers()), SHAPE), target)


@pytest.mark.parametrize("precision", [FLOAT, HALF])
def test_layers_are_found_through_shuffles_layouts_and_casts(precision: str) -> None:
    lowered, inputs = _lowered(precision), [draw(*SHAPE).numpy()]
    writes = unscheduled_writes(lowered.module, inputs)
    layers, samples = layers_of(lowered.program, writes, inputs, half_scale=1.0)
    found = {(layer.name, layer.operator) for layer in layers}
    assert {
        ("stem", "relu"), ("compress", "relu"), ("depthwise", "batch_norm"), ("expand", "relu"),
        ("avg_pool2d", "avg_pool2d"), ("max_pool2d_with_indices", "max_pool2d"), ("cat", "cat"),
        ("mean", "mean"), ("classifier", "linear"),
    } <= found  # fmt: skip
    assert set(samples) == {f"layer_{layer.call}" for layer in layers}
    bound = {FLOAT: 1e-5, HALF: 1e-2}[precision]
    for layer in layers:
        told, ours = samples[f"layer_{layer.call}"], layer_sample(layer_rows(writes[layer.call][0]))
        assert told.dtype == np.float32
        assert np.abs(told - ours).max() < bound * max(1.0, np.abs(told).max()), layer
    # What half precision rounds shows: samples are PyTorch's, never the kernel's own.
    stem = samples["layer_" + str(next(la.call for la in layers if la.name == "stem"))]
    network = seeded(Layers())
    with torch.no_grad():
        expected = torch.relu(network.stem(torch.from_numpy(inputs[0])))
    np.testing.assert_allclose(
        stem, layer_sample(layer_rows(expected.permute(0, 2, 3, 1).numpy())), atol=1e-5
    )


def test_a_kernel_that_is_wrong_stands_for_no_layer() -> None:
    lowered, inputs = _lowered(FLOAT), [draw(*SHAPE).numpy()]
    writes = unscheduled_writes(lowered.module, inputs)
    right, _ = layers_of(lowered.program, writes, inputs, half_scale=1.0)
    place = next(layer.call for layer in right if layer.name == "compress")
    for wrong in (np.roll(writes[place][0], 1, axis=1), writes[place][0] * np.float32(np.nan)):
        changed = [*writes[:place], [wrong], *writes[place + 1 :]]
        layers, _ = layers_of(lowered.program, changed, inputs, half_scale=1.0)
        assert [la for la in layers if la.call == place] == []
        assert len(layers) == len(right) - 1


def test_tensors_in_half_stand_for_more_than_they_hold() -> None:
    values = np.float16([1.0, 2.0])
    np.testing.assert_array_equal(standing_for(values, 8.0, 0), np.float32([8.0, 16.0]))
    np.testing.assert_array_equal(
        standing_for(np.int8([-128, 3]), 0.5, -128), np.float32([0, 65.5])
    )


@pytest.mark.parametrize("shape", [(1, 56, 56, 240), (1, 1, 1, 7), (1000,), (1, 3, 1, 5), ()])
def test_samples_are_spread_over_pixels_and_channels(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    rows = layer_rows(values)
    picked = layer_sample(rows)
    assert len(rows) <= ROWS and len(set(picked)) == len(picked) <= LAYER_SAMPLES
    if values.size > LAYER_SAMPLES and values.ndim > 1:
        # Every channel but a few, and pixels of the first and the last rows.
        channels = picked.astype(int) % shape[-1]
        assert len(set(channels)) > 0.9 * shape[-1]
        assert picked.max() > 0.9 * values.size
