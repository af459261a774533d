"""ShuffleNet V1 as megvii and mmpretrain define it, where neither's package can be installed.

Written from their sources: megvii-model/ShuffleNet-Series, ShuffleNetV1, and
open-mmlab/mmpretrain, models/backbones/shufflenet_v1.py.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

UNITS = (4, 8, 4)


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw weights by which every mistake shows: no batch norm is trivial."""
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in module.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.normal_(0.3, 0.3, generator=generator)
        elif tensor.dim() > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
    return module.eval().requires_grad_(False)


class MegviiUnit(nn.Module):
    """Shuffles after its depthwise convolution, the other way about."""

    def __init__(self, into: int, out: int, groups: int, first: bool) -> None:
        super().__init__()
        middle, self.halves = out // 4, into != out
        self.groups = groups
        made = out - into if self.halves else out
        self.branch_main_1 = nn.Sequential(
            nn.Conv2d(into, middle, 1, groups=1 if first else groups, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, middle, 3, 1 + self.halves, 1, groups=middle, bias=False),
            nn.BatchNorm2d(middle),
        )
        self.branch_main_2 = nn.Sequential(
            nn.Conv2d(middle, made, 1, groups=groups, bias=False), nn.BatchNorm2d(made)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.branch_main_1(x)
        if self.groups > 1:
            # Rows of as many as there are groups: the other way about than the paper's figure.
            n, c, h, w = made.shape
            made = made.view(n, c // self.groups, self.groups, h, w).transpose(1, 2)
            made = made.reshape(n, c, h, w)
        made = self.branch_main_2(made)
        if not self.halves:
            return functional.relu(x + made)
        return torch.cat((functional.avg_pool2d(x, 3, 2, 1), functional.relu(made)), 1)


class Megvii(nn.Module):
    """Takes blue, green, red in 0 to 255."""

    def __init__(
        self,
        stem: int,
        width: int,
        groups: int,
        classes: int = 1000,
        units: tuple[int, ...] = UNITS,
    ) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(
            nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        made, into = [], stem
        for stage, count in enumerate(units):
            out = width * 2**stage
            for unit in range(count):
                made.append(MegviiUnit(into, out, groups, stage == unit == 0))
                into = out
        self.features = nn.Sequential(*made)
        self.classifier = nn.Sequential(nn.Linear(into, classes, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(functional.max_pool2d(self.first_conv(x), 3, 2, 1))
        return self.classifier(x.mean((2, 3)))


class ConvNorm(nn.Module):
    """A convolution and its batch norm, as mmcv's ConvModule names them."""

    def __init__(self, *arguments: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(*arguments, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(arguments[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x))


class MmpretrainUnit(nn.Module):
    """Shuffles after its depthwise convolution."""

    def __init__(self, into: int, out: int, groups: int, first: bool) -> None:
        super().__init__()
        middle, self.halves = out // 4, into != out
        self.groups = groups
        made = out - into if self.halves else out
        self.g_conv_1x1_compress = ConvNorm(into, middle, 1, groups=1 if first else groups)
        self.depthwise_conv3x3_bn = ConvNorm(middle, middle, 3, 1 + self.halves, 1, groups=middle)
        self.g_conv_1x1_expand = ConvNorm(middle, made, 1, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.depthwise_conv3x3_bn(functional.relu(self.g_conv_1x1_compress(x)))
        n, c, h, w = made.shape
        made = made.view(n, self.groups, -1, h, w).transpose(1, 2).reshape(n, c, h, w)
        made = self.g_conv_1x1_expand(made)
        if not self.halves:
            return functional.relu(x + made)
        return torch.cat((functional.avg_pool2d(x, 3, 2, 1), functional.relu(made)), 1)


class MmpretrainBackbone(nn.Module):
    """All but the classifier."""

    def __init__(self, stem: int, width: int, groups: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, stem, 3, 2, 1)
        stages, into = [], stem
        for stage, count in enumerate(UNITS):
            out, units = width * 2**stage, []
            for unit in range(count):
                units.append(MmpretrainUnit(into, out, groups, stage == unit == 0))
                into = out
            stages.append(nn.Sequential(*units))
        self.layers = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 3, 2, 1)
        for stage in self.layers:
            x = stage(x)
        return x


class Mmpretrain(nn.Module):
    """The whole network."""

    def __init__(self, stem: int, width: int, groups: int, classes: int = 1000) -> None:
        super().__init__()
        self.backbone = MmpretrainBackbone(stem, width, groups)
        self.head = nn.ModuleDict({"fc": nn.Linear(4 * width, classes)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head["fc"](self.backbone(x).mean((2, 3)))
