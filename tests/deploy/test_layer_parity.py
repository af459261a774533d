"""Parity by layer: what is said of right, wrong and noisy layers, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tiny import lowered, tiny_bundle

from shuffledeploy.compiler.bundle.folder import MANIFEST, Bundle
from shuffledeploy.compiler.bundle.layer_samples import layer_rows, layer_sample
from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.bundle.manifest_entries import Layer
from shuffledeploy.deploy.presentation.layer_report import advice, first_line
from shuffledeploy.deploy.run import main
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.layer_parity import (
    LayerError,
    LayerParity,
    check_layers,
    layer_error,
)
from shuffledeploy.model.errors import UsageError


def in_half() -> Manifest:
    """Give a manifest of a network in half precision."""
    return msgspec.structs.replace(tiny_bundle().manifest, precision="float16", tolerance=5e-2)


def error_of(
    written: np.ndarray, told: np.ndarray, manifest: Manifest | None = None, scale: float = 1.0
) -> LayerError:
    """Judge a layer, the last of its network."""
    expected = layer_sample(layer_rows(told.astype(np.float32)))
    return layer_error(
        Layer(0, "conv", "relu", scale), written, expected, 1.0, manifest or tiny_bundle().manifest
    )


def test_a_right_network_has_every_layer_within_its_share() -> None:
    bundle = tiny_bundle()
    with open_network(bundle, "local") as network:
        parity = check_layers(network, bundle)
    told = [(layer.name, layer.operator) for layer in parity.layers]
    assert ("first", "relu") in told and ("second", "relu") in told
    assert ("classifier", "linear") in told
    assert parity.first_beyond is None
    assert all(100 < layer.signal_to_noise <= 200 for layer in parity.layers)
    assert all(layer.saturated == 0 for layer in parity.layers)


def test_the_first_wrong_layer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, report = tiny_bundle(broken=True), tmp_path / "report.json"
    assert main([str(bundle.path), "--device", "local", "--layers", "--json", str(report)]) == 1
    printed = capsys.readouterr().out
    kernel = lowered("host").calls[1]
    assert f"first layer beyond its share: second ({kernel})" in printed.replace("\n", " ")
    layers = json.loads(report.read_text())["layers"]
    assert [layer["name"] for layer in layers][:2] == ["first", "second"]
    assert layers[0]["signal_to_noise"] > 100
    assert layers[1]["signal_to_noise"] < 30


@pytest.mark.parametrize("name", ["layers.png", "layers.svg"])
def test_a_table_and_a_picture(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / name
    arguments = [str(tiny_bundle().path), "--device", "local", "--runs", "2", "--layers"]
    assert main([*arguments, "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "signal to noise, dB" in printed
    assert "first layer beyond its share: none" in printed
    # Layers within their share add little, the worst of them too.
    assert "adds much noise" not in printed
    assert "has the most noise" in printed and "within its share" in " ".join(printed.split())
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG") or b"<svg" in content


def test_half_precision_is_held_against_the_spread_and_its_own_rounding() -> None:
    values = np.random.default_rng(0).normal(size=(1, 8, 8, 32)).astype(np.float32)
    rounded = error_of(values.astype(np.float16), values, in_half())
    assert 65 < rounded.signal_to_noise < 80
    assert rounded.rounding_alone and not rounded.is_beyond
    # Numbers far from 0 and near each other: rounding costs more of what they differ by.
    far = error_of((values + 1000).astype(np.float16), values + 1000, in_half())
    assert far.signal_to_noise < 20
    assert far.rounding_alone and far.is_beyond
    assert "its own rounding" in advice(far, LayerParity((far,), "float16"))
    noisy = error_of((values * 1.05).astype(np.float16), values, in_half())
    assert not noisy.rounding_alone and noisy.is_beyond
    assert "its sums cancel" in advice(noisy, LayerParity((noisy,), "float16"))
    # Tensors that hold an eighth of what they stand for.
    part = error_of((values / 8).astype(np.float16), values, in_half(), scale=8.0)
    assert part.signal_to_noise == pytest.approx(rounded.signal_to_noise, abs=1)


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, 65504.0])
def test_saturated_numbers_are_counted_in_the_whole_tensor(wrong: float) -> None:
    values = np.ones((1, 64, 64, 8), np.float16)
    values[0, ::2, 1, 3] = wrong
    told = error_of(values, np.ones_like(values), in_half())
    assert told.saturated == pytest.approx(32 / values.size)
    parity = LayerParity((told,), "float16")
    assert "numbers beyond 65,504" in advice(told, parity)


def test_samples_of_another_tensor_are_refused() -> None:
    with pytest.raises(UsageError, match="samples of layer conv are not of its tensor"):
        error_of(np.ones((4, 4), np.float32), np.ones((4, 5)))


def test_what_is_no_number_is_beyond_and_worst() -> None:
    good = error_of(np.ones((4, 4), np.float32), np.ones((4, 4)))
    bad = error_of(np.full((4, 4), np.nan, np.float32), np.ones((4, 4)))
    assert math.isnan(bad.signal_to_noise) and bad.is_beyond and bad.saturated == 1
    parity = LayerParity((good, dataclasses.replace(bad, name="bad")), "float32")
    assert parity.first_beyond is not None and parity.first_beyond.name == "bad"
    assert parity.worst[0].name == "bad"
    assert "bad" in first_line(parity)
    assert parity.to_json()[1]["signal_to_noise"] is None


def test_the_worst_layers_are_those_that_add_noise() -> None:
    layer = error_of(np.ones((4, 4), np.float32), np.ones((4, 4)))
    levels = [90.0, 50.0, 49.9, 40.0, 60.0]
    made = [dataclasses.replace(layer, name=str(i), signal_to_noise=db)
            for i, db in enumerate(levels)]  # fmt: skip
    # The fourth and the second; the third has nearly all of its noise from the second.
    assert [found.name for found in LayerParity(tuple(made), "float32").worst] == ["3", "1", "2"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--picture", "a.png"], "--picture draws the layers of --layers"),
        (["--layers", "--picture", "a.gif"], r"a file .png or .svg, not a.gif"),
        (["--layers", "--standalone"], "--layers asks the bundle"),
        (["--layers", "--runner"], "--layers asks the bundle"),
    ],
)
def test_mistakes_end_in_one_line(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny_bundle().path), *options]) == 2
    assert complaint in capsys.readouterr().err


def test_a_bundle_without_layers_says_how_to_get_them(tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_bundle().path, tmp_path / "bundle"))
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({k: v for k, v in manifest.items() if k != "layers"}))
    bundle = Bundle(path, msgspec.structs.replace(tiny_bundle().manifest, layers=()))
    with open_network(tiny_bundle(), "local") as network:
        with pytest.raises(UsageError, match=r"has no samples of PyTorch's layers: make it again"):
            check_layers(network, bundle)
    assert main([str(path), "--layers"]) == 2
