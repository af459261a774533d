"""Real images through the compiled network: its accuracy is PyTorch's."""

from __future__ import annotations

import pytest

from shuffledeploy.compiler.targets import find_target
from shuffledeploy.deploy.actions.fashion_check import first_images, measure_accuracy
from shuffledeploy.deploy.fashion_accuracy import main
from shuffledeploy.deploy.on_device.native_server import ensure_server
from shuffledeploy.deploy.runtime.comparison import cached_bundle
from shuffledeploy.deploy.runtime.defaults import ALLOWED_DISAGREEMENTS as ALLOWED
from shuffledeploy.deploy.runtime.defaults import allowed_disagreements
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.fashion_data import FASHION, Split, fetch, read_split

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def images() -> Split:
    try:
        return read_split("test", fetch())
    except Failure as error:
        pytest.skip(f"no Fashion-MNIST: {error}")


def test_ten_thousand_images_on_this_machine(images: Split) -> None:
    bundle = cached_bundle(FASHION, None, find_target("host"))
    with open_network(bundle, "local") as network:
        accuracy = measure_accuracy(network, images)
    assert accuracy.images == 10_000
    assert accuracy.pytorch > 0.9
    assert len(accuracy.disagreements) <= ALLOWED, accuracy.disagreements
    assert accuracy.device == pytest.approx(accuracy.pytorch, abs=ALLOWED / 10_000)


def test_images_in_half_precision_on_this_machine(images: Split) -> None:
    host = find_target("host")
    if not host.computes_in_half:
        pytest.skip("this machine has no arithmetic for half precision")
    bundle = cached_bundle(FASHION, None, host.computing_in("float16"))
    with open_network(bundle, "local") as network:
        accuracy = measure_accuracy(network, first_images(images, 4000))
    assert len(accuracy.disagreements) <= allowed_disagreements("float16", 4000)
    assert accuracy.device == pytest.approx(accuracy.pytorch, abs=1e-3)


def test_half_precision_may_name_a_thousandth_differently() -> None:
    allowed = [allowed_disagreements("float16", images) for images in (100, 1000, 10_000)]
    assert allowed == [1, 1, 10]
    assert allowed_disagreements("float32", 10_000) == ALLOWED


@pytest.mark.emulated
def test_five_hundred_images_on_an_emulated_core(images: Split) -> None:
    try:
        ensure_server()
    except Failure as error:
        pytest.skip(f"no emulated board: {error}")
    bundle = cached_bundle(FASHION, None, find_target("arm"))
    with open_network(bundle, "emulated") as network:
        accuracy = measure_accuracy(network, first_images(images, 500))
    assert accuracy.images == 500
    assert len(accuracy.disagreements) <= ALLOWED, accuracy.disagreements
    assert accuracy.device == pytest.approx(accuracy.pytorch, abs=ALLOWED / 500)


def test_mistakes_end_in_one_line(images: Split, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="1 to 10000"):
        first_images(images, 10_001)
    assert main(["--bundle", "/nowhere", "--images", "5"]) == 2
    assert "is not a bundle" in capsys.readouterr().err
