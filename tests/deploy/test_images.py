"""Pictures as users have them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from tiny import NORMALISATION, SIDE, tiny_bundle

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.bundle.manifest_entries import ImageStatistics, Tensor
from shuffledeploy.deploy.runtime.pictures import image_input, top_predictions
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.fashion_data import CLASSES


def manifest(shape: tuple[int, ...] = (1, 3, SIDE, SIDE), **changes: object) -> Manifest:
    inputs = (Tensor("image", shape, "float32"),)
    return msgspec.structs.replace(tiny_bundle().manifest, inputs=inputs, **changes)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK"])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_flat_colour_comes_out_normalised(tmp_path: Path, mode: str, ending: str) -> None:
    if (mode, ending) in {("RGBA", "jpg"), ("P", "jpg"), ("CMYK", "png")}:
        pytest.skip("there are no such files")
    path = tmp_path / f"flat.{ending}"
    Image.new("RGB", (50, 30), (51, 51, 51)).convert(mode).save(path)
    values = image_input(path, manifest())
    assert values.shape == (1, 3, SIDE, SIDE)
    assert values.dtype == np.float32
    mean, std = (np.array(NORMALISATION[key]) for key in ("mean", "std"))
    np.testing.assert_allclose(values[0].mean((1, 2)), (0.2 - mean) / std, atol=0.06)


def test_the_middle_is_taken_and_the_right_way_up(tmp_path: Path) -> None:
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 32:96] = 255  # only the middle square is white
    pixels[:8, :] = (255, 0, 0)  # a red stripe, half of it beyond the crop
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).rotate(180).save(path, exif=exif)
    values = image_input(path, manifest((1, 3, 32, 32)))
    white = (1 - np.array(NORMALISATION["mean"])) / np.array(NORMALISATION["std"])
    np.testing.assert_allclose(values[0, :, 16, 16], white, rtol=1e-5)
    assert values[0, 1, 0, 16] < white[1] - 1  # the stripe is at the top
    np.testing.assert_allclose(values[0, :, 31, 16], white, rtol=1e-5)


def test_an_image_of_the_very_size_is_not_resampled(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    grey = manifest((1, 1, 28, 28), normalisation=ImageStatistics((0.286,), (0.353,)))
    expected = (pixels.astype(np.float32) / 255 - 0.286) / 0.353
    values = image_input(tmp_path / "grey.png", grey)
    np.testing.assert_allclose(values[0, 0], expected, atol=1e-6)


def test_what_is_no_image_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.png"
    text.write_text("not an image")
    whole = tmp_path / "whole.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(whole)
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:2000])
    for path, complaint in (
        (text, "is not an image"),
        (tmp_path / "absent.png", "there is no image"),
        (cut, "cannot be read"),
        (tmp_path, "is no file"),
    ):
        with pytest.raises(UsageError, match=complaint) as caught:
            image_input(path, manifest())
        assert "\n" not in str(caught.value)
    strip = tmp_path / "strip.png"
    Image.new("L", (60000, 1)).save(strip)
    with pytest.raises(UsageError, match="too narrow"):
        image_input(strip, manifest((1, 3, 224, 224)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UsageError, match="too large"):
        image_input(whole, manifest())


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "BMP", "WEBP", "PPM", "ICO", "TGA", "float TIFF"])
def test_other_kinds_of_pictures_are_not_read(tmp_path: Path, kind: str) -> None:
    """A TIFF of floats had been read as black."""
    path = tmp_path / "picture.png"
    picture = Image.new("RGB", (32, 32), (200, 100, 50))
    if kind == "float TIFF":
        picture, kind = Image.fromarray(np.full((32, 32), 0.5, np.float32)), "TIFF"
    picture.save(path, format=kind)
    with pytest.raises(UsageError, match=r"is not an image \(PNG and JPEG are read\)"):
        image_input(path, manifest())


def test_no_picture_reaches_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to the first `gs` it finds, which runs what is in it."""
    marker, program = tmp_path / "marker", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "picture.png"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n"
        b"(marker) (w) file closefile\nshowpage\n%%EOF\n"
    )
    with pytest.raises(UsageError, match="is not an image"):
        image_input(path, manifest())
    assert not marker.exists()


def test_what_would_be_read_for_ever_is_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), Path("/dev/stdin")):
        with pytest.raises(UsageError, match="is no file"):
            image_input(path, manifest())


def test_sixteen_bits_a_pixel_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((28, 28), 0x8080, np.uint16)).save(path)
    grey = manifest((1, 1, 28, 28), normalisation=ImageStatistics((0.0,), (1.0,)))
    np.testing.assert_allclose(image_input(path, grey), 0x80 / 255, atol=1e-6)


def test_networks_that_take_no_images_say_so(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="takes no image"):
        image_input(tmp_path / "a.png", manifest((1, 7)))
    with pytest.raises(UsageError, match="how its images are normalised"):
        image_input(tmp_path / "a.png", manifest(normalisation=None))


def test_the_likeliest_classes_come_first() -> None:
    top = top_predictions(np.float32([[0, 3, 1, 2, -1, -2, 1000, -3, 5, 4]]), CLASSES)
    assert [p.index for p in top] == [6, 8, 9, 1, 3]
    assert top[0].name == "shirt"
    assert top[0].probability == pytest.approx(1.0)
    assert top_predictions(np.float32([1, 2]), CLASSES)[0].name is None
