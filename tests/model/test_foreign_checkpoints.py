"""Checkpoints of other projects: recognised, converted exactly, or refused with what is nearest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign_networks import Megvii, Mmpretrain, drawn
from torch import nn

from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.foreign.checkpoint import Checkpoint, read_checkpoint
from shuffledeploy.model.registry import build, names

NETWORKS = Path(__file__).parents[1] / "networks"
#: Sums of a network of 50 layers in another order.
CLOSE = 1e-4


def saved(tmp_path: Path, content: object) -> Path:
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def require_same(found: Checkpoint, theirs: nn.Module, image: torch.Tensor) -> None:
    """Both in float64, where only the order of sums differs."""
    wanted = theirs.double()(image.double())
    answer = found.module.double()(image.double())
    assert wanted.std() > 1e-3
    assert (answer - wanted).abs().max() < CLOSE * wanted.std()


def image(seed: int = 1, side: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("network", "stem", "width", "groups", "turned"),
    [
        ("shufflenet-g3-x0.5", 12, 120, 3, 0),
        ("shufflenet-g3-x1", 24, 240, 3, 0),
        # 12, 24 and 48 channels a group: where 8 does not divide them, the shuffle is turned.
        ("shufflenet-g8-x1", 24, 384, 8, 3),
        ("shufflenet-g8-x2", 48, 768, 8, 0),
        ("shufflenet-g1-x1", 24, 144, 1, 0),
    ],
)
def test_megvii(
    tmp_path: Path, network: str, stem: int, width: int, groups: int, turned: int
) -> None:
    theirs = drawn(Megvii(stem, width, groups))
    wrapped = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    found = read_checkpoint(saved(tmp_path, {"state_dict": wrapped}))
    assert (found.network, found.publisher, found.turned_shuffles) == (network, "megvii", turned)
    # Pixels of 0 to 255, blue first.
    assert found.normalisation.mean == (0, 0, 0)
    assert found.normalisation.std == (1 / 255,) * 3
    pictures = image()
    theirs.double()
    wanted = theirs(pictures.double().flip(1))
    answer = found.module.double()(pictures.double())
    assert (answer - wanted).abs().max() < CLOSE * wanted.std()


@pytest.mark.parametrize(("network", "width", "groups"), [
    ("shufflenet-g3-x1", 240, 3), ("shufflenet-g4-x1", 272, 4), ("shufflenet-g8-x1", 384, 8),
])  # fmt: skip
def test_mmpretrain(tmp_path: Path, network: str, width: int, groups: int) -> None:
    theirs = drawn(Mmpretrain(24, width, groups, classes=7))
    found = read_checkpoint(
        saved(tmp_path, {"meta": {"epoch": 300}, "state_dict": theirs.state_dict()}), network
    )
    assert (found.network, found.publisher, found.classes) == (network, "mmpretrain", 7)
    assert found.turned_shuffles == 0
    require_same(found, theirs, image())


@pytest.mark.parametrize(("name", "network"), [
    ("shufflenet_g1_w1", "shufflenet-g1-x1"), ("shufflenet_g2_w1", "shufflenet-g2-x1"),
    ("shufflenet_g3_wd4", "shufflenet-g3-x0.25"), ("shufflenet_g3_w3d4", "shufflenet-g3-x0.75"),
    ("shufflenet_g4_w1", "shufflenet-g4-x1"), ("shufflenet_g8_w1", "shufflenet-g8-x1"),
    ("mobilenet_wd4", "mobilenet-x0.25"), ("mobilenet_w1", "mobilenet-x1.0"),
    ("resnext50_32x4d", "resnext50-32x4d"), ("alexnetb", "alexnet-ungrouped"),
])  # fmt: skip
def test_pytorchcv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, network: str
) -> None:
    theirs = _of_package("pytorchcv", name, monkeypatch)
    found = read_checkpoint(saved(tmp_path, {"model": theirs.state_dict()}))
    assert (found.network, found.publisher) == (network, "pytorchcv")
    require_same(found, theirs, image(side=224))


def test_timm_has_torchvisions_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = _of_package("timm", "resnext50_32x4d", monkeypatch)
    found = read_checkpoint(saved(tmp_path, theirs.state_dict()))
    assert (found.network, found.publisher) == ("resnext50-32x4d", "torchvision or timm")
    require_same(found, theirs, image(side=96))


def _of_package(package: str, name: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    pytest.importorskip(package, reason="make networks installs it")
    monkeypatch.setattr(sys, "path", [*sys.path, str(NETWORKS)])
    from package_networks import PackageNetwork, package_network  # type: ignore[import-not-found]

    network: PackageNetwork = package_network(package, name)
    return drawn(network.make())


def _marvis(key: str) -> str:
    """Blocks in one sequence: convolution, norm, ReLU, convolution, norm, ReLU."""
    layer, _, of = key.rpartition(".")
    if layer == "classifier":
        return f"fc.{of}"
    if layer.startswith("stem"):
        return f"model.0.{layer[-1]}.{of}"
    _, block, part, kind = layer.split(".")
    return f"model.{int(block) + 1}.{int(part) * 3 + int(kind)}.{of}"


@pytest.mark.parametrize(
    ("network", "theirs"),
    [
        ("mobilenet-x0.25", _marvis),
        ("alexnet-ungrouped", lambda key: key),
    ],
)
def test_names_of_packages_that_are_not_installed(
    tmp_path: Path, network: str, theirs: Callable[[str], str]
) -> None:
    ours = build(network)
    state = {theirs(key): value for key, value in ours.state_dict().items()}
    found = read_checkpoint(saved(tmp_path, state))
    assert found.network == network
    assert found.publisher in ("pytorch-mobilenet", "torchvision")
    side = image(side=96)
    assert torch.equal(found.module(side), ours(side))


@pytest.mark.parametrize("network", [n for n in names() if n.endswith(("x0.25", "fashion"))])
def test_our_own_names_tell_the_network(tmp_path: Path, network: str) -> None:
    ours = build(network)
    found = read_checkpoint(saved(tmp_path, {"model_state_dict": ours.state_dict()}))
    assert (found.network, found.publisher) == (network, "shuffledeploy")
    assert found.module.state_dict().keys() == ours.state_dict().keys()
    assert all(
        torch.equal(value, ours.state_dict()[key])
        for key, value in found.module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    )


def test_a_twin_takes_the_weights_of_its_network(tmp_path: Path) -> None:
    path = saved(tmp_path, build("shufflenet-g3-x0.25").state_dict())
    name = "shufflenet-g3-x0.25-unshuffled"
    assert read_checkpoint(path, name).network == name


def test_another_network_than_the_one_named_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, Megvii(12, 120, 3).state_dict())
    with pytest.raises(UsageError, match=r"shufflenet-g3-x0.5 under megvii's.*not of alexnet"):
        read_checkpoint(path, "alexnet")


def test_names_that_are_nearly_known_are_refused_with_the_nearest(tmp_path: Path) -> None:
    state = Mmpretrain(24, 240, 3).state_dict()
    state["backbone.neck.weight"] = torch.zeros(1)
    del state["head.fc.bias"]
    with pytest.raises(UsageError, match="nearly mmpretrain's names of ShuffleNet V1") as caught:
        read_checkpoint(saved(tmp_path, state))
    assert "head.fc.bias is missing" in str(caught.value)
    assert "backbone.neck.weight is not among them" in str(caught.value)


def test_shapes_that_no_network_has_are_refused_with_the_nearest(tmp_path: Path) -> None:
    state = Megvii(24, 240, 3).state_dict()
    state["first_conv.0.weight"] = torch.zeros(16, 3, 3, 3)
    with pytest.raises(UsageError, match=r"nearest is shufflenet-g3-x1, and first_conv.0.weight"):
        read_checkpoint(saved(tmp_path, state))


def test_names_of_nobody_are_refused_in_one_line(tmp_path: Path) -> None:
    state = {f"two\nlines{i}\x1b": torch.zeros(1) for i in range(540)}
    with pytest.raises(UsageError, match="no network that is known here: 540 tensors") as caught:
        read_checkpoint(saved(tmp_path, state))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def _infinite(state: dict[str, torch.Tensor]) -> None:
    state["classifier.0.weight"][0, 0] = float("inf")


def _whole(state: dict[str, torch.Tensor]) -> None:
    state["first_conv.1.bias"] = torch.ones(12, dtype=torch.int64)


def _sparse(state: dict[str, torch.Tensor]) -> None:
    state["first_conv.0.weight"] = state["first_conv.0.weight"].to_sparse()


def _endless(state: dict[str, torch.Tensor]) -> None:
    state["classifier.0.weight"] = torch.zeros(1, 480).expand(90_000, 480)


def _none(state: dict[str, torch.Tensor]) -> None:
    state["classifier.0.weight"] = torch.zeros(0, 480)


@pytest.mark.parametrize(("spoil", "message"), [
    (_infinite, "classifier.0.weight holds infinity"),
    (_whole, "first_conv.1.bias holds no floating-point numbers"),
    (_sparse, "first_conv.0.weight is sparse"),
    (_endless, "classifier.0.weight claims 90000 classes"),
    (_none, "classifier.0.weight claims 0 classes"),
])  # fmt: skip
def test_values_that_cannot_be_weights_are_named_as_the_file_does(
    tmp_path: Path, spoil: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    state = dict(Megvii(12, 120, 3).state_dict())
    spoil(state)
    with pytest.raises(UsageError, match=message):
        read_checkpoint(saved(tmp_path, state))
