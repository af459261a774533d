"""ShuffleNet V1 as megvii, mmpretrain and pytorchcv publish it.

All have the paper's layers. They differ in the order of channels, and a permutation of channels is
one of weights:

- megvii and mmpretrain shuffle after the depthwise convolution, which works on each channel alone;
- megvii's shuffle goes the other way about (see :func:`place_channels`), its images are blue,
  green, red in 0 to 255, and its classifier has no bias;
- pytorchcv concatenates (branch, pool), not (pool, branch). Read from the last channel to the
  first that is (pool, branch), and groups and shuffles are the same read either way.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from shuffledeploy.model.foreign.naming import Naming
from shuffledeploy.model.registry import Normalisation, names
from shuffledeploy.model.shufflenet import STAGE_UNITS, ShuffleUnit, channel_shuffle
from shuffledeploy.model.weights import State

NETWORKS = tuple(name for name in names() if re.fullmatch(r"shufflenet-g\d+-x[\d.]+", name))

#: Pixels of 0 to 255 as they are.
RAW_PIXELS = Normalisation((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))


def _unit(layer: str) -> tuple[int, int, str] | None:
    """Take ``stage2.0.expand`` apart: stage from 0, unit, layer of the unit."""
    match = re.fullmatch(r"stage(\d)\.(\d+)\.(\w+)", layer)
    return (int(match[1]) - 2, int(match[2]), match[3]) if match else None


def megvii_layer(layer: str) -> str:
    """Name a layer as megvii's ShuffleNet-Series does."""
    outside = {"stem": "first_conv.0", "stem_norm": "first_conv.1", "classifier": "classifier.0"}
    parts = {
        "compress": "branch_main_1.0", "compress_norm": "branch_main_1.1",
        "depthwise": "branch_main_1.3", "depthwise_norm": "branch_main_1.4",
        "expand": "branch_main_2.0", "expand_norm": "branch_main_2.1",
    }  # fmt: skip
    if (found := _unit(layer)) is None:
        return outside[layer]
    stage, unit, part = found
    return f"features.{sum(STAGE_UNITS[:stage]) + unit}.{parts[part]}"


def mmpretrain_layer(layer: str) -> str:
    """Name a layer as mmpretrain (formerly mmclassification) does."""
    outside = {
        "stem": "backbone.conv1.conv", "stem_norm": "backbone.conv1.bn", "classifier": "head.fc",
    }  # fmt: skip
    parts = {
        "compress": "g_conv_1x1_compress", "depthwise": "depthwise_conv3x3_bn",
        "expand": "g_conv_1x1_expand",
    }  # fmt: skip
    if (found := _unit(layer)) is None:
        return outside[layer]
    stage, unit, part = found
    kind = "bn" if part.endswith("_norm") else "conv"
    return f"backbone.layers.{stage}.{unit}.{parts[part.removesuffix('_norm')]}.{kind}"


def pytorchcv_layer(layer: str) -> str:
    """Name a layer as pytorchcv (imgclsmob) does."""
    outside = {
        "stem": "features.init_block.conv", "stem_norm": "features.init_block.bn",
        "classifier": "output",
    }  # fmt: skip
    parts = {
        "compress": "compress_conv1", "compress_norm": "compress_bn1", "depthwise": "dw_conv2",
        "depthwise_norm": "dw_bn2", "expand": "expand_conv3", "expand_norm": "expand_bn3",
    }  # fmt: skip
    if (found := _unit(layer)) is None:
        return outside[layer]
    stage, unit, part = found
    return f"features.stage{stage + 1}.unit{unit + 1}.{parts[part]}"


def convert_megvii(module: nn.Module, state: State) -> State:
    """Take red first, no bias, and shuffles to before the depthwise convolutions."""
    converted = {**state, "stem.weight": state["stem.weight"].flip(1)}
    converted["classifier.bias"] = converted["classifier.weight"].new_zeros(
        len(converted["classifier.weight"])
    )
    return _shuffle_first(module, converted, is_reversed=True)


def convert_mmpretrain(module: nn.Module, state: State) -> State:
    """Take shuffles to before the depthwise convolutions."""
    return _shuffle_first(module, dict(state), is_reversed=False)


def convert_pytorchcv(module: nn.Module, state: State) -> State:
    """Read all channels but those of the image and of the logits from the last to the first."""
    return {key: _mirrored(key, tensor) for key, tensor in state.items()}


def _mirrored(key: str, tensor: torch.Tensor) -> torch.Tensor:
    if key.startswith("classifier"):
        return tensor.flip(1) if tensor.dim() == 2 else tensor
    return tensor.flip((0, 1) if tensor.dim() == 4 and not key.startswith("stem") else 0)


def _shuffle_first(module: nn.Module, state: State, *, is_reversed: bool) -> State:
    for prefix, unit in module.named_modules():
        if isinstance(unit, ShuffleUnit) and unit.shuffles:
            _rearrange(unit, prefix, state, is_reversed)
    return state


def _rearrange(unit: ShuffleUnit, prefix: str, state: State, is_reversed: bool) -> None:
    """Rearrange the tensors of a unit that shuffles after its depthwise convolution.

    Where no order of channels makes our shuffle of the other one, the unit's shuffle is turned.
    """
    groups, channels = unit.expand.groups, unit.depthwise.out_channels
    there = _shuffled(channels, channels // groups if is_reversed else groups)
    ours = _shuffled(channels, groups)
    placed = place_channels(there, ours, unit.compress.groups, groups)
    if placed is None:
        unit.shuffle_groups, ours = channels // groups, there
        placed = torch.arange(channels)
    for name in ("compress.weight", *_norm_keys("compress_norm")):
        state[f"{prefix}.{name}"] = state[f"{prefix}.{name}"][placed]
    after = placed[ours]
    for name in ("depthwise.weight", *_norm_keys("depthwise_norm")):
        state[f"{prefix}.{name}"] = state[f"{prefix}.{name}"][after]
    position_there = torch.argsort(there)[after]
    weight = state[f"{prefix}.expand.weight"]
    rows, size = len(weight) // groups, channels // groups
    columns = (position_there % size).reshape(groups, size).repeat_interleave(rows, dim=0)
    state[f"{prefix}.expand.weight"] = weight.gather(1, columns[:, :, None, None])


def _norm_keys(layer: str) -> list[str]:
    return [f"{layer}.{of}" for of in ("weight", "bias", "running_mean", "running_var")]


def _shuffled(channels: int, groups: int) -> torch.Tensor:
    """Give the channel that stands at each position after a shuffle."""
    return channel_shuffle(torch.arange(channels).reshape(1, -1, 1, 1), groups).flatten()


def place_channels(
    there: torch.Tensor, ours: torch.Tensor, groups_before: int, groups_after: int
) -> torch.Tensor | None:
    """Find an order of channels by which one shuffle becomes another.

    Each channel must be made by the same group of the convolution before the shuffle, and be read
    by the same group of the one after it.

    Parameters
    ----------
    there, ours : torch.Tensor
        The channel that stands at each position after their shuffle, and after ours.
    groups_before, groups_after : int
        Of the convolutions before and after.

    Returns
    -------
    torch.Tensor or None
        The channel of theirs that each of ours is. None where more channels go from one group to
        another there than here: then there is no such order.
    """
    channels = len(ours)
    made_by = torch.arange(channels) // (channels // groups_before)
    size = channels // groups_after
    ways = []
    for order in (there, ours):
        way = made_by * groups_after + torch.argsort(order) // size
        ways.append((way, torch.argsort(way * channels + torch.argsort(order))))
    (way_there, sorted_there), (way_ours, sorted_ours) = ways
    if not torch.equal(way_there[sorted_there], way_ours[sorted_ours]):
        return None
    placed = torch.empty_like(sorted_ours)
    placed[sorted_ours] = sorted_there
    return placed


SHUFFLENET_NAMINGS = (
    Naming(
        "megvii", "ShuffleNet V1", NETWORKS, megvii_layer, convert_megvii,
        ("classifier.bias",), RAW_PIXELS,
    ),
    Naming("mmpretrain", "ShuffleNet V1", NETWORKS, mmpretrain_layer, convert_mmpretrain),
    Naming("pytorchcv", "ShuffleNet V1", NETWORKS, pytorchcv_layer, convert_pytorchcv),
)  # fmt: skip
