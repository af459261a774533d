"""ShuffleNet V1: pointwise group convolutions, and a channel shuffle between them.

Zhang, Zhou, Lin, Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
Devices", CVPR 2018 (arXiv 1707.01083). A unit, with ``g`` groups and a bottleneck of a quarter of
its output's channels::

    x ── 1x1 group conv ── channel shuffle ── 3x3 depthwise ── 1x1 group conv ──┐
    └────── identity (stride 1), or 3x3 average pool (stride 2) ────────────────┤
                              ReLU ── add (stride 1), or concatenation (stride 2)

Batch norm follows every convolution, ReLU only the first of the three.
"""

from __future__ import annotations

import torch
from torch import nn

from shuffledeploy.model.errors import UsageError

#: Output channels of stages 2, 3, 4 at 1x (Table 1): more groups buy wider layers at equal cost.
STAGE_CHANNELS: dict[int, tuple[int, int, int]] = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}

#: Channels of the first convolution. The paper gives 24 at 1x; the others follow from the
#: complexities it reports for the scaled networks (24, not 36, at 1.5x: 292 M multiply-adds).
STEM_CHANNELS: dict[float, int] = {0.25: 6, 0.5: 12, 0.75: 18, 1.0: 24, 1.5: 24, 2.0: 48}

#: Units of stages 2, 3, 4; the first of each has stride 2 (Table 1).
STAGE_UNITS = (4, 8, 4)

#: The bottleneck has a quarter of its unit's output channels (section 3.2).
BOTTLENECK_RATIO = 4

STEM_STRIDES = (1, 2, 4)


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Send channel ``i * n + j`` (``groups`` x ``n`` channels) to ``j * groups + i``.

    Parameters
    ----------
    x : torch.Tensor
        Feature map, ``(batch, groups * n, height, width)``.
    groups : int
        Groups of the convolution that made ``x``.

    Returns
    -------
    torch.Tensor
        Same shape; each group of the next convolution now sees channels of every group.

    Raises
    ------
    UsageError
        The channels do not divide into the groups.
    """
    batch, channels, height, width = x.shape
    if groups < 1 or channels % groups:
        raise UsageError(f"{channels} channels cannot be shuffled in {groups} groups")
    grouped = x.reshape(batch, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """One unit of Figure 2(b), stride 1, or 2(c), stride 2.

    Parameters
    ----------
    in_channels, out_channels : int
        Equal at stride 1. At stride 2 the pooled input gives the first ``in_channels`` of the
        output and the branch the rest.
    groups : int
        Groups of the pointwise convolutions and of the shuffle.
    stride : int
        1 or 2.
    group_first : bool
        False for the very first unit: its input has too few channels to be worth grouping.
    shuffle : bool
        False leaves the channel shuffle out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        stride: int,
        group_first: bool,
        shuffle: bool = True,
    ) -> None:
        super().__init__()
        bottleneck = out_channels // BOTTLENECK_RATIO
        branch = out_channels if stride == 1 else out_channels - in_channels
        compress_groups = groups if group_first else 1
        #: Of the shuffle. With as many as a group has channels it would go the other way about.
        self.shuffle_groups = groups
        # Shuffling one group changes nothing: keep it out of the graph.
        self.shuffles = shuffle and groups > 1
        self.compress = nn.Conv2d(in_channels, bottleneck, 1, groups=compress_groups, bias=False)
        self.compress_norm = nn.BatchNorm2d(bottleneck)
        self.depthwise = nn.Conv2d(
            bottleneck, bottleneck, 3, stride, padding=1, groups=bottleneck, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(bottleneck)
        self.expand = nn.Conv2d(bottleneck, branch, 1, groups=groups, bias=False)
        self.expand_norm = nn.BatchNorm2d(branch)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride == 2 else None

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the branch."""
        return self.expand_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h', w')``."""
        branch = torch.relu(self.compress_norm(self.compress(x)))
        if self.shuffles:
            branch = channel_shuffle(branch, self.shuffle_groups)
        branch = self.depthwise_norm(self.depthwise(branch))
        branch = self.expand_norm(self.expand(branch))
        if self.pool is None:
            return torch.relu(x + branch)
        return torch.relu(torch.cat((self.pool(x), branch), dim=1))


class ShuffleNet(nn.Module):
    """The whole network; made by :func:`shufflenet`, which checks the arguments."""

    def __init__(
        self,
        groups: int,
        stem_channels: int,
        stage_channels: tuple[int, ...],
        num_classes: int,
        in_channels: int,
        stem_stride: int,
        shuffle: bool = True,
        *,
        stage_units: tuple[int, ...] = STAGE_UNITS,
    ) -> None:
        super().__init__()
        stride = 1 if stem_stride == 1 else 2
        self.stem = nn.Conv2d(in_channels, stem_channels, 3, stride, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem_channels)
        self.stem_pool = nn.MaxPool2d(3, 2, padding=1) if stem_stride == 4 else nn.Identity()
        widths = (stem_channels, *stage_channels)
        stages = [
            nn.Sequential(
                ShuffleUnit(widths[i], widths[i + 1], groups, 2, i > 0, shuffle),
                *(
                    ShuffleUnit(widths[i + 1], widths[i + 1], groups, 1, True, shuffle)
                    for _ in range(units - 1)
                ),
            )
            for i, units in enumerate(stage_units)
        ]
        self.stage2, self.stage3, self.stage4 = stages
        self.classifier = nn.Linear(stage_channels[-1], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(batch, in_channels, h, w)`` to logits ``(batch, num_classes)``."""
        x = self.stem_pool(torch.relu(self.stem_norm(self.stem(x))))
        x = self.stage4(self.stage3(self.stage2(x)))
        return self.classifier(x.mean((2, 3)))


def stage_channels(groups: int, scale: float) -> tuple[int, int, int]:
    """Give the output channels of stages 2, 3 and 4.

    Parameters
    ----------
    groups : int
        1, 2, 3, 4 or 8.
    scale : float
        Multiplies the channels: ``s`` of "ShuffleNet s x".

    Returns
    -------
    tuple of int
        Three widths.

    Raises
    ------
    UsageError
        Groups or scale are not the paper's, or a width does not divide (the message says which).
    """
    if groups not in STAGE_CHANNELS:
        known = ", ".join(map(str, STAGE_CHANNELS))
        raise UsageError(f"ShuffleNet has no variant of {groups} groups: choose one of {known}")
    if scale not in STEM_CHANNELS:
        known = ", ".join(f"{known:g}" for known in STEM_CHANNELS)
        raise UsageError(f"ShuffleNet has no variant of scale {scale:g}: choose one of {known}")
    first, second, third = (round(width * scale) for width in STAGE_CHANNELS[groups])
    branch = first - STEM_CHANNELS[scale]
    wants = [(f"{branch} channels of the first unit's branch in stage 2", branch)]
    for stage, width in enumerate((first, second, third), start=2):
        bottleneck = width // BOTTLENECK_RATIO
        wants.append((f"{width} output channels of stage {stage}", width))
        wants.append((f"{bottleneck} bottleneck channels of stage {stage}", bottleneck))
    for what, channels in wants:
        if channels % groups:
            raise UsageError(
                f"ShuffleNet {scale:g}x with {groups} groups cannot be built: "
                f"the {what} do not divide by {groups}"
            )
    return first, second, third


def is_constructible(groups: int, scale: float) -> bool:
    """Tell whether every grouped layer of the variant divides into its groups."""
    try:
        stage_channels(groups, scale)
    except UsageError:
        return False
    return True


def shufflenet(
    groups: int,
    scale: float,
    num_classes: int = 1000,
    *,
    in_channels: int = 3,
    stem_stride: int = 4,
    shuffle: bool = True,
) -> nn.Module:
    """Build ShuffleNet V1 with PyTorch's initial weights, for images of any resolution.

    Parameters
    ----------
    groups : int
        Groups of the pointwise convolutions: 1, 2, 3, 4 or 8.
    scale : float
        Channel multiplier: 0.25, 0.5, 0.75, 1, 1.5 or 2. Some pairs do not divide: 2 and 4
        groups need scale 1 or 2, 8 groups need 1, 1.5 or 2.
    num_classes : int
        Logits.
    in_channels : int
        Channels of the image.
    stem_stride : int
        How far the layers before stage 2 shrink the image. 4, the paper's, is a stride-2
        convolution and a max pool. For images as small as 28x28: 2 leaves the pool out, and 1
        makes the convolution stride 1 too.
    shuffle : bool
        False leaves every channel shuffle out: a twin of the same layers, the same parameters and
        as many multiply-adds, by which it is measured what a shuffle costs. It is no use for
        anything else, for its groups never hear of each other.

    Returns
    -------
    nn.Module
        In training mode, as any new module.

    Raises
    ------
    UsageError
        A value out of range, or channels that do not divide (the message names them).
    """
    widths = stage_channels(groups, scale)
    if num_classes < 1 or in_channels < 1:
        raise UsageError(
            f"classes and channels start at 1, not {num_classes} classes, {in_channels} channels"
        )
    if stem_stride not in STEM_STRIDES:
        raise UsageError(f"stem stride is 1, 2 or 4, not {stem_stride}")
    stem_channels = STEM_CHANNELS[scale]
    return ShuffleNet(groups, stem_channels, widths, num_classes, in_channels, stem_stride, shuffle)
