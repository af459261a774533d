"""Inputs from which a network in int8 learns: arrays or pictures; others are refused in a line."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shuffledeploy.compiler.bundle.manifest_entries import ImageStatistics
from shuffledeploy.compiler.bundle.manifest_entries import Tensor as Taken
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.tune import main as tune
from shuffledeploy.compiler.tuning.calibration import MOST_INPUTS, calibration_inputs
from shuffledeploy.deploy.runtime.pictures import picture_input
from shuffledeploy.model.errors import UsageError

INPUTS = (Taken("x", (1, 3, 8, 6), FLOAT),)
STATISTICS = ImageStatistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def test_calibration_takes_an_array_or_pictures(tmp_path: Path) -> None:
    array, folder = tmp_path / "inputs.npz", tmp_path / "pictures"
    np.savez(array, np.ones((3, 3, 8, 6), np.float32))
    found = calibration_inputs(array, INPUTS, None, picture_input)
    assert [values[0].shape for values in found] == [(1, 3, 8, 6)] * 3
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (20, 30), (0, 0, 255)).save(folder / name)
    found = calibration_inputs(folder, INPUTS, STATISTICS, picture_input)
    assert [values[0].shape for values in found] == [(1, 3, 8, 6)] * 2
    assert found[0][0][0, 2].mean() == pytest.approx(2.5, abs=0.1)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (np.ones((3, 3, 8, 7), np.float32), r"takes float32 \(N, 3, 8, 6\)"),
        (np.ones((3, 3, 8, 6)), "holds float64"),
        (np.ones((0, 3, 8, 6), np.float32), r"holds float32 \(0, 3, 8, 6\)"),
        (np.full((1, 3, 8, 6), np.nan, np.float32), "numbers that are none"),
    ],
)
def test_arrays_of_another_kind_are_refused(values: Array, complaint: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", values)
    with pytest.raises(UsageError, match=complaint):
        calibration_inputs(tmp_path / "inputs.npz", INPUTS, None, picture_input)


def test_an_array_is_read_as_far_as_it_is_wanted(tmp_path: Path) -> None:
    # A few kB that unpack to far more than is read, and a header that claims terabytes.
    huge = {"descr": "<f4", "fortran_order": False, "shape": (1 << 32, 3, 8, 6)}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, huge)
    path = tmp_path / "inputs.npz"
    rows = MOST_INPUTS + 20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(rows * 3 * 8 * 6 * 4))
    assert len(calibration_inputs(path, INPUTS, None, picture_input)) == MOST_INPUTS
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(3 * 8 * 6 * 4))
    with pytest.raises(UsageError, match="cut short"):
        calibration_inputs(path, INPUTS, None, picture_input)
    np.savez(path, np.array([{}], dtype=object))
    with pytest.raises(UsageError, match="holds object"):
        calibration_inputs(path, INPUTS, None, picture_input)


def test_what_is_no_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no pictures"):
        calibration_inputs(tmp_path, INPUTS, STATISTICS, picture_input)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="is not an image"):
        calibration_inputs(tmp_path, INPUTS, STATISTICS, picture_input)
    with pytest.raises(UsageError, match="no picture of known --mean and --std"):
        calibration_inputs(tmp_path, INPUTS, None, picture_input)
    (tmp_path / "b.npz").write_bytes(b"no array")
    with pytest.raises(UsageError, match=r"is no \.npz of inputs"):
        calibration_inputs(tmp_path / "b.npz", INPUTS, None, picture_input)
    with pytest.raises(UsageError, match="there is no folder or file"):
        calibration_inputs(tmp_path / "c.npz", INPUTS, None, picture_input)
    with pytest.raises(UsageError, match="one float32 input"):
        calibration_inputs(tmp_path, INPUTS * 2, None, picture_input)


def test_a_folder_that_is_not_there_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(["--precision", "int8", "--calibrate", "/nowhere"]) == 2
    assert "no folder or file /nowhere" in capsys.readouterr().err.replace("\n", " ")


def test_calibration_without_int8_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(["--calibrate", str(tmp_path)]) == 2
    assert "--calibrate goes with --precision int8" in capsys.readouterr().err
