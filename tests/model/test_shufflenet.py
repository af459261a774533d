"""ShuffleNet V1: its parameters, its shuffle, its units, what cannot be built."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.shufflenet import (
    ShuffleUnit,
    channel_shuffle,
    is_constructible,
    shufflenet,
)

#: (groups, scale): parameters, with a bias in the classifier and none in the convolutions.
#: Re-derived from the paper's tables, and those that osmr/imgclsmob asserts.
PARAMETERS = {
    (1, 1): 1_531_936,
    (2, 1): 1_733_848,
    (3, 1): 1_865_728,
    (4, 1): 1_968_344,
    (8, 1): 2_434_768,
    (1, 0.75): 975_214,
    (3, 0.75): 1_238_266,
    (1, 0.5): 534_484,
    (3, 0.5): 718_324,
    (1, 0.25): 209_746,
    (3, 0.25): 305_902,
    (3, 2): 5_450_776,
}


@pytest.mark.parametrize(("groups", "scale"), PARAMETERS)
def test_parameters_are_the_papers(groups: int, scale: float) -> None:
    with torch.device("meta"):
        module = shufflenet(groups, scale)
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[groups, scale]


@pytest.mark.smoke
def test_shuffle_of_six_channels_in_two_groups() -> None:
    x = torch.arange(6).reshape(1, 6, 1, 1)
    assert channel_shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(("channels", "groups"), [(240, 3), (272, 4), (384, 8), (12, 1)])
def test_shuffle_is_undone_by_the_complementary_shuffle(channels: int, groups: int) -> None:
    x = torch.randn(2, channels, 3, 5)
    shuffled = channel_shuffle(x, groups)
    assert torch.equal(channel_shuffle(shuffled, channels // groups), x)
    assert torch.equal(shuffled, x) == (groups == 1)


def test_shuffle_agrees_with_pytorchs_own() -> None:
    x = torch.randn(2, 24, 3, 5)
    assert torch.equal(channel_shuffle(x, 3), torch.nn.functional.channel_shuffle(x, 3))


def test_shuffle_feeds_every_group_from_every_group() -> None:
    groups, per_group = 4, 8
    origin = torch.arange(groups).repeat_interleave(per_group).reshape(1, -1, 1, 1)
    for group in channel_shuffle(origin, groups).flatten().chunk(groups):
        assert set(group.tolist()) == set(range(groups))


@pytest.mark.parametrize("groups", [0, -1, 5])
def test_shuffle_refuses_channels_that_do_not_divide(groups: int) -> None:
    with pytest.raises(UsageError, match="12 channels"):
        channel_shuffle(torch.zeros(1, 12, 2, 2), groups)


def test_without_shuffle_a_group_never_sees_the_others() -> None:
    """What the shuffle is for: with it, one input channel reaches every output channel."""

    def reached(unit: nn.Module) -> int:
        torch.manual_seed(0)
        x = torch.rand(1, 24, 5, 5)
        changed = x.clone()
        changed[:, 0] += 1
        with torch.no_grad():
            return int(((unit(x) - unit(changed)).abs().amax((0, 2, 3)) > 1e-6).sum())

    unit = ShuffleUnit(24, 24, groups=3, stride=1, group_first=True).eval()
    for norm in (unit.compress_norm, unit.expand_norm):
        nn.init.constant_(norm.bias, 10.0)  # above zero: no ReLU hides anything
    with_shuffle = reached(unit)
    unit.shuffle_groups = 1  # leaves out the shuffle; the convolutions keep their groups
    assert reached(unit) == 8
    assert with_shuffle > 8


def test_stride_two_unit_puts_the_pooled_input_first() -> None:
    unit = ShuffleUnit(24, 60, groups=3, stride=2, group_first=True).eval()
    x = torch.rand(1, 24, 8, 8)
    with torch.no_grad():
        out = unit(x)
    assert out.shape == (1, 60, 4, 4)
    pooled = nn.functional.avg_pool2d(x, 3, 2, padding=1)
    assert torch.equal(out[:, :24], pooled)


def test_first_pointwise_convolution_alone_is_not_grouped() -> None:
    with torch.device("meta"):
        module = shufflenet(8, 1)
    groups = {
        name: layer.groups
        for name, layer in module.named_modules()
        if name.endswith((".compress", ".expand"))
    }
    assert {name for name, count in groups.items() if count == 1} == {"stage2.0.compress"}
    assert set(groups.values()) == {1, 8}
    assert len(groups) == 2 * 16


@pytest.mark.parametrize(
    ("groups", "scale", "message"),
    [
        (5, 1, "no variant of 5 groups"),
        (3, 0.3, "no variant of scale 0.3"),
        (3, -1, "no variant of scale -1"),
        (2, 0.5, "25 bottleneck channels of stage 2"),
        (8, 0.5, "180 channels of the first unit's branch"),
        (2, 0.25, "25 bottleneck channels of stage 3"),
    ],
)
def test_what_cannot_be_built_says_what_does_not_divide(
    groups: int, scale: float, message: str
) -> None:
    assert not is_constructible(groups, scale)
    with pytest.raises(UsageError, match=message):
        shufflenet(groups, scale)


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"in_channels": 0}, {"stem_stride": 3}])
def test_options_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        shufflenet(3, 1, **options)


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (97, 33), (480, 640)])
@pytest.mark.parametrize("stem_stride", [1, 2, 4])
def test_any_resolution(size: tuple[int, int], stem_stride: int) -> None:
    with torch.device("meta"):
        module = shufflenet(3, 0.25, 7, in_channels=1, stem_stride=stem_stride).eval()
        stem = module.stem_pool(module.stem(torch.empty(1, 1, *size)))
        assert module(torch.empty(2, 1, *size)).shape == (2, 7)
    assert stem.shape[2:] == tuple(-(-side // stem_stride) for side in size)
