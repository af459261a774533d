"""Networks by name: all of them build, and their random weights are fit to compare with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.fashion_data import FASHION
from shuffledeploy.model.mobilenet import mobilenet, scaled_resolution
from shuffledeploy.model.registry import (
    build,
    construct,
    input_shape,
    names,
    normalisation,
    twin,
    zoo,
)
from shuffledeploy.model.resnext import resnext
from shuffledeploy.model.resolution import parse_resolution, write_resolution


@pytest.mark.parametrize("name", names())
def test_every_name_builds_and_maps_its_images_to_logits(name: str) -> None:
    shape = input_shape(name)
    with torch.device("meta"):
        module = construct(name)
        logits = module(torch.empty(shape))
    assert logits.shape == (1, 10 if name == FASHION else 1000)
    assert not module.training
    assert normalisation(name).channels == shape[1]
    assert len(normalisation(name).std) == shape[1]


def test_names() -> None:
    assert set(zoo()) < set(names())
    assert len(set(names())) == len(names())
    # Every pair of groups and scale whose channels divide.
    assert sum(name.startswith("shufflenet-g") for name in names()) == 19
    assert {"shufflenet-g1-x1", "shufflenet-g8-x1.5", "mobilenet-x0.25"} < set(names())


@pytest.mark.parametrize(
    "name",
    ["shufflenet-g1-x0.25", "shufflenet-g3-x2", "shufflenet-g8-x1", "mobilenet-x0.5", "alexnet"],
)
def test_random_logits_are_of_order_one(name: str) -> None:
    images = torch.randn((2, *input_shape(name)[1:]), generator=torch.Generator().manual_seed(7))
    for seed in (0, 1):
        spread = build(name, seed=seed)(images).std(dim=1)
        assert spread.min() > 0.3
        assert spread.max() < 3


@pytest.mark.parametrize(
    "name", ["shufflenet-g1-x0.25", "shufflenet-g3-x1", "resnext50-32x4d", "mobilenet-x0.25"]
)
def test_numbers_inside_are_of_a_trained_networks_size(name: str) -> None:
    network, reached = build(name), []
    for layer in network.modules():
        layer.register_forward_hook(lambda _, __, y: reached.append(float(y.abs().max())))
    network(torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(7)))
    assert 4 < max(reached) < 64
    # Weights of the classifier make up for large numbers: less than 2**-14 is coarse in half.
    *_, classifier = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    assert classifier.weight.abs().max() > 0.01


@pytest.mark.smoke
def test_weights_depend_on_the_seed_and_on_nothing_else() -> None:
    torch.manual_seed(1)
    first = build("mobilenet-x0.25", seed=3).state_dict()
    torch.manual_seed(2)
    again = build("mobilenet-x0.25", seed=3).state_dict()
    other = build("mobilenet-x0.25", seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_no_batch_norm_is_trivial() -> None:
    module = build("shufflenet-g3-x0.5")
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 1 + 3 * 16
    for norm in norms:
        for values, trivial in (
            (norm.weight, 1),
            (norm.bias, 0),
            (norm.running_mean, 0),
            (norm.running_var, 1),
        ):
            assert (values - trivial).abs().max() > 0.05
        assert norm.running_var.min() > 0.5


def test_class_count() -> None:
    assert build("shufflenet-g3-x0.25", num_classes=5)(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    with pytest.raises(UsageError, match="at least one class"):
        build("alexnet", num_classes=0)
    with pytest.raises(UsageError, match="trained for 10 classes"):
        build(FASHION, num_classes=5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shufflenet-g3-1x", "did you mean .*shufflenet-g3-x1,"),
        ("AlexNet", "did you mean alexnet"),
        ("shufflenet-g4-x0.5", "34 bottleneck channels of stage 2 do not divide by 4"),
        ("shufflenet-g7-x1", "no variant of 7 groups"),
        ("vit", "one of shufflenet"),
        ("", "one of shufflenet"),
    ],
)
def test_unknown_name(name: str, message: str) -> None:
    for look_up in (build, construct, input_shape, normalisation):
        with pytest.raises(UsageError, match=message):
            look_up(name)


def test_input_shape() -> None:
    assert input_shape("alexnet") == (1, 3, 224, 224)
    assert input_shape("shufflenet-g3-x1", (480, 640)) == (1, 3, 480, 640)
    assert input_shape(FASHION) == (1, 1, 28, 28)


@pytest.mark.parametrize(
    ("name", "resolution"),
    [("alexnet", (62, 224)), ("mobilenet-x1.0", (0, 224)), ("resnext50-32x4d", (224, 5000))],
)
def test_resolution_out_of_range(name: str, resolution: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="pixels a side"):
        input_shape(name, resolution)


def test_smallest_alexnet_image_is_really_the_smallest() -> None:
    with torch.device("meta"):
        module = construct("alexnet")
        assert module(torch.empty(1, 3, 63, 63)).shape == (1, 1000)
        with pytest.raises(RuntimeError, match="too small"):
            module(torch.empty(1, 3, 62, 62))


def test_parse_resolution() -> None:
    assert parse_resolution("480x640") == (480, 640)
    assert write_resolution((480, 640)) == "480x640"
    assert parse_resolution(" 224 ") == (224, 224)
    for text in ("", "x", "4x", "-1x3", "1x2x3", "1.5x2", "²x3"):
        with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
            parse_resolution(text)


def test_parameters_of_the_other_networks() -> None:
    def parameters(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        assert parameters(construct("alexnet")) == 60_965_224
        assert parameters(construct("mobilenet-x1.0")) == 4_231_976
        assert parameters(construct("resnext50-32x4d")) == 25_028_904
        # torchvision's ResNet-50 and ResNeXt-101 32x8d.
        assert parameters(resnext(50, cardinality=1, width=64)) == 25_557_032
        assert parameters(resnext(101, cardinality=32, width=8)) == 88_791_336


def test_multipliers_out_of_range() -> None:
    for alpha in (0, -1, 1.5):
        with pytest.raises(UsageError, match="alpha"):
            mobilenet(alpha)
    for rho in (0, 2):
        with pytest.raises(UsageError, match="rho"):
            scaled_resolution(rho)
    for arguments in ((34, 32, 4), (50, 0, 4), (50, 32, 0)):
        with pytest.raises(UsageError, match="ResNeXt"):
            resnext(*arguments)


def test_a_twin_differs_by_its_shuffles_alone() -> None:
    assert [twin(name) for name in ("alexnet", "shufflenet-g1-x1", "mobilenet-x1.0")] == [None] * 3
    name = twin("shufflenet-g3-x0.5")
    assert name is not None and name not in names()
    shuffled, unshuffled = build("shufflenet-g3-x0.5"), build(name)
    assert input_shape(name) == input_shape("shufflenet-g3-x0.5")
    weights, others = shuffled.state_dict(), unshuffled.state_dict()
    assert weights.keys() == others.keys()
    assert all(
        torch.equal(weights[key], others[key]) for key in weights if key != "classifier.weight"
    )
    image = torch.randn(input_shape(name))
    assert not torch.allclose(shuffled(image), unshuffled(image))
