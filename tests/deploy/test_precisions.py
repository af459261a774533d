"""One line a precision: which there are, what is printed, what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_bundle

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.deploy.actions import compare_precisions
from shuffledeploy.deploy.actions.fashion_check import Accuracy
from shuffledeploy.deploy.estimate.boards import find_board
from shuffledeploy.deploy.precisions import main
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.fashion_data import Split

BOARD = "raspberry-pi-5"


def _tiny(_: str, __: Any, target: CompileTarget, **___: Any) -> Bundle:
    """Stand for a network in any precision."""
    return tiny_bundle(target.name)


def _no_images() -> Path:
    raise Failure("Fashion-MNIST cannot be fetched: no network")


def test_a_core_without_half_has_two_lines() -> None:
    targets = compare_precisions.targets_of(find_board("raspberry-pi-4"))
    assert [target.precision for target in targets] == ["float32", "int8"]
    targets = compare_precisions.targets_of(find_board(BOARD))
    assert [target.precision for target in targets] == ["float32", "float16", "int8"]


def _images() -> Path:
    return Path()


@pytest.mark.emulated
@pytest.mark.parametrize("fetch", [_images, _no_images])
def test_each_precision_has_a_line_and_its_kinds_are_told(
    fetch: Callable[[], Path],
    tmp_path: Path,
    board_built: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blank = Split(np.zeros((9, 28, 28), np.uint8), np.zeros(9, np.int64))
    known = Accuracy("emulated:cortex-a76", 9, 8 / 9, 1.0, ())
    for name, stands_in in {
        "cached_bundle": _tiny,
        "fetch": fetch,
        "read_split": lambda *_: blank,
        "fashion_bundle": lambda target, _: tiny_bundle(target.name),
        "measure_accuracy": lambda *_: known,
    }.items():
        monkeypatch.setattr(compare_precisions, name, stands_in)
    file = tmp_path / "lines.json"
    assert main(["--model", "tiny", "--images", "9", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for text in ("measured", "counted", "estimated", "float16"):
        assert text in printed
    has_images = fetch is _images
    assert (printed.count("88.9%"), "cannot be fetched" in printed) == (
        3 * has_images,
        not has_images,
    )
    written = json.loads(file.read_text())
    assert [row["precision"] for row in written["rows"]] == ["float32", "float16", "int8"]
    for row in written["rows"]:
        assert row["library_bytes"] == tiny_bundle("cortex-a76").library.stat().st_size
        assert 0 < row["instructions"] < 1e6
        assert row["on_board"]["milliseconds"] > 0
        assert row["parity"]["passed"]
        assert (row["accuracy"] is not None) == has_images
