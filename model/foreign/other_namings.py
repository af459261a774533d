"""MobileNet V1, ResNeXt and AlexNet as others publish them: the same networks, other names."""

from __future__ import annotations

import itertools
import re

from shuffledeploy.model.foreign.naming import Naming
from shuffledeploy.model.mobilenet import BLOCKS
from shuffledeploy.model.registry import names

MOBILENETS = tuple(name for name in names() if re.fullmatch(r"mobilenet-x[\d.]+", name))
#: AlexNet's layers that have weights, by their place in ours.
_ALEXNET = {
    "features.0": "features.stage1.unit1.conv", "features.3": "features.stage2.unit1.conv",
    "features.6": "features.stage3.unit1.conv", "features.8": "features.stage3.unit2.conv",
    "features.10": "features.stage3.unit3.conv", "classifier.1": "output.fc1.fc",
    "classifier.4": "output.fc2.fc", "classifier.6": "output.fc3",
}  # fmt: skip


def _mobilenet_block(layer: str) -> tuple[int, bool, bool]:
    """Take ``blocks.3.1.0`` apart: the block, whether pointwise, whether a batch norm."""
    _, block, part, kind = layer.split(".")
    return int(block), part == "1", kind == "1"


def pytorchcv_mobilenet_layer(layer: str) -> str:
    """Name a layer of MobileNet as pytorchcv does: stages begin where the image shrinks."""
    if not layer.startswith("blocks"):
        return {
            "stem.0": "features.init_block.conv", "stem.1": "features.init_block.bn",
            "classifier": "output",
        }[layer]  # fmt: skip
    block, is_pointwise, is_norm = _mobilenet_block(layer)
    starts = [i for i, (_, stride) in enumerate(BLOCKS) if i == 0 or stride == 2]
    stage = sum(start <= block for start in starts)
    unit = block - starts[stage - 1] + 1
    part = "pw_conv" if is_pointwise else "dw_conv"
    return f"features.stage{stage}.unit{unit}.{part}.{'bn' if is_norm else 'conv'}"


def sequential_mobilenet_layer(layer: str) -> str:
    """Name a layer of MobileNet as marvis's pytorch-mobilenet does, and who followed it."""
    if not layer.startswith("blocks"):
        return {"stem.0": "model.0.0", "stem.1": "model.0.1", "classifier": "fc"}[layer]
    block, is_pointwise, is_norm = _mobilenet_block(layer)
    return f"model.{block + 1}.{3 * is_pointwise + is_norm}"


def _resnext_unit(layer: str) -> tuple[int, int, str] | None:
    match = re.fullmatch(r"stages\.(\d+)\.(\d+)\.(.+)", layer)
    return (int(match[1]) + 1, int(match[2]), match[3]) if match else None


def torchvision_resnext_layer(layer: str) -> str:
    """Name a layer of ResNeXt as torchvision, timm and mmpretrain's backbones do."""
    if (found := _resnext_unit(layer)) is None:
        return {"stem": "conv1", "stem_norm": "bn1", "classifier": "fc"}[layer]
    stage, unit, part = found
    parts = {
        "compress": "conv1", "compress_norm": "bn1", "grouped": "conv2", "grouped_norm": "bn2",
        "expand": "conv3", "expand_norm": "bn3", "projection.0": "downsample.0",
        "projection.1": "downsample.1",
    }  # fmt: skip
    return f"layer{stage}.{unit}.{parts[part]}"


def pytorchcv_resnext_layer(layer: str) -> str:
    """Name a layer of ResNeXt as pytorchcv does."""
    if (found := _resnext_unit(layer)) is None:
        return {
            "stem": "features.init_block.conv.conv", "stem_norm": "features.init_block.conv.bn",
            "classifier": "output",
        }[layer]  # fmt: skip
    stage, unit, part = found
    layers = ("body.conv1", "body.conv2", "body.conv3", "identity_conv")
    pairs = [("compress", "compress_norm"), ("grouped", "grouped_norm"),
             ("expand", "expand_norm"), ("projection.0", "projection.1")]  # fmt: skip
    parts = dict(
        zip(itertools.chain(*pairs), (f"{name}.{of}" for name in layers for of in ("conv", "bn")),
            strict=True)
    )  # fmt: skip
    return f"features.stage{stage}.unit{unit + 1}.{parts[part]}"


def pytorchcv_alexnet_layer(layer: str) -> str:
    """Name a layer of AlexNet as pytorchcv does."""
    return _ALEXNET[layer]


OTHER_NAMINGS = (
    Naming("pytorchcv", "MobileNet V1", MOBILENETS, pytorchcv_mobilenet_layer),
    Naming("pytorch-mobilenet", "MobileNet V1", MOBILENETS, sequential_mobilenet_layer),
    Naming("torchvision or timm", "ResNeXt", ("resnext50-32x4d",), torchvision_resnext_layer),
    Naming("pytorchcv", "ResNeXt", ("resnext50-32x4d",), pytorchcv_resnext_layer),
    Naming("torchvision", "AlexNet", ("alexnet-ungrouped",), str),
    Naming("pytorchcv", "AlexNet", ("alexnet-ungrouped",), pytorchcv_alexnet_layer),
)
