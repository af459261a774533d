"""The networks from which passes make what their golden texts show, each as small as can be."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearOverTokens(nn.Module):
    """Product, sum, activation and residual follow each other on rows, no other shape between."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.gelu(self.linear(x))


class NormedTokens(nn.Module):
    """The norm is a kernel that reads and writes rows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Covariance(nn.Module):
    """The product reads the same tensor twice, once by its columns."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2) @ x


class SharesOfTokens(nn.Module):
    """The softmax is a kernel that reads and writes rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


class TwoHeads(nn.Module):
    """What a linear layer writes is read by one kernel, which writes what the next one reads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.last = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(1, 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.last(x.transpose(1, 2).reshape(1, 5, 8))


class Passed(nn.Module):
    """One answer is the input in another shape, and is copied."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), torch.relu(x)


class LayersInInt8(nn.Module):
    """What the second and the third layer read is held in int8; weights are rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.third = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(torch.relu(self.first(x))))


class MoreBehind(nn.Module):
    """The zeros behind the image, a row and a column, are in the attributes of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x, (0, 1, 0, 1)))


class PixelsAsChannels(nn.Module):
    """The four pixels of a square are channels of one, which windows of four by four read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pixel_unshuffle(x, 2))


class ChannelsAsPixels(nn.Module):
    """Channels are put in the order of squares first, which the convolution then writes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(2, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.pixel_shuffle(self.first(x), 2))


class EnlargedAnswer(nn.Module):
    """Nobody behind the answer reads it in another order of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(self.conv(x), scale_factor=2)


class ShuffledAnswer(nn.Module):
    """The answer is in NCHW and in the program's order of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 12, 1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.channel_shuffle(self.conv(x), 3)


class Norms(nn.Module):
    """The first batch norm is in the convolution's weights, the second a product and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.first, self.second = nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(self.conv(x))))


class TwoPaths(nn.Module):
    """Two paths of three convolutions each are three, the middle one by groups."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in range(2))
        self.middle = nn.ModuleList(nn.Conv2d(4, 4, 3) for _ in range(2))
        self.wide = nn.ModuleList(nn.Conv2d(4, 6, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        paths = zip(self.narrow, self.middle, self.wide, strict=True)
        left, right = (c(torch.relu(b(a(x)))) for a, b, c in paths)
        return left + right


class ShuffledUnit(nn.Module):
    """Three lines of a shuffle are one `take`, directly before the convolution by groups."""

    def __init__(self, groups: int = 3, width: int = 4) -> None:
        super().__init__()
        wide, self.groups = groups * width, groups
        self.compress = nn.Conv2d(wide, wide, 1, groups=groups)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.expand = nn.Conv2d(wide, wide, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.channel_shuffle(torch.relu(self.compress(x)), self.groups)
        return self.expand(self.depthwise(y))


class UnitReadInRuns(ShuffledUnit):
    """The `take` goes up to the convolution that writes: the depthwise one reads in its order."""


class PoolBetween(nn.Module):
    """One transposition is left, of the network's input; all layers have their channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.first(x))
        return self.second(nn.functional.max_pool2d(x, 2)).mean((2, 3))


class Flattened(nn.Module):
    """The transposition before the flattened product is gone: its weight has other rows now."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 5, 1), nn.Linear(5 * 4 * 3, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(x)).flatten(1))


class AdaptivePools(nn.Module):
    """A pool to the size that is there is gone, one to halves is plain, uneven windows stay.

    One that rounds up has padding behind the image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.conv(x)
        adaptive = [nn.functional.adaptive_avg_pool2d(x, size) for size in ((6, 8), (3, 4), (4, 5))]
        return [*adaptive, nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)]


class DenseBlock(nn.Module):
    """The last concatenation has three parts; before the norm the first has one reader."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.second = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.first(x)], 1)
        return torch.cat([x, self.second(torch.relu(self.norm(x)))], 1)


class ConvolutionAndSum(nn.Module):
    """Transposition, shuffle, sum and activation have no lines: they are inside of the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.grouped = nn.Conv2d(12, 12, 1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.grouped(nn.functional.channel_shuffle(x, 3)) + x)
        return x.mean((2, 3))


class GatedAtTheEnd(nn.Module):
    """A cast at either border, and one more before the sigmoid, which stays float32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.linear(torch.relu(self.conv(x)).mean((2, 3)))
        return y, torch.sigmoid(y)


class Gated(nn.Module):
    """Two operators that no kernel of ours covers are one kernel, which TVM fused."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.fmod(x, 2.0).cos().mean((2, 3))


class TwoProducts(nn.Module):
    """Calls stay; weights are laid out in blocks of so many outputs as the schedule takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 32, 1), nn.Conv2d(32, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


class ThreeKernels(TwoProducts):
    """A second function calls the same kernels and answers with what each of them wrote."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((2, 3))


class Joined(nn.Module):
    """No concatenation is called: the second kernel writes into the tensor of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.beside = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.relu(torch.cat([nn.functional.max_pool2d(x, 3, 1, 1), self.beside(x)], 1))


class LargeImage(nn.Module):
    """Two calls are one, which computes strips of rows in turn in a little memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, 1, 1, groups=12)
        self.expand = nn.Conv2d(12, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.depthwise(torch.relu(self.stem(x)))).mean((2, 3))


class Residual(nn.Module):
    """The sum is written over the residual that goes into it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.reduce, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.relu(self.expand(torch.relu(self.reduce(x))) + x).mean((2, 3))


class LayerTwice(nn.Module):
    """Constants are numbers, the bytes where they start: a layer called twice has them once."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.last = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.twice(torch.relu(self.twice(x)))))
