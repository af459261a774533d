"""Labels and statistics that a user gives: good ones are read, each bad one is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.picture_facts import LARGEST_LABELS, normalisation_of, read_labels


def test_labels_stand_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes("tench, Tinca tinca\r\ngoldfish \n café\n\n".encode())
    assert read_labels(tmp_path / "l.txt") == ("tench, Tinca tinca", "goldfish", "café")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no label"),
        (b"\n\n", "holds no label"),
        (b"one\n\nthree\n", "line 2 is no label"),
        (b"x" * 301, "line 1 is no label"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"ab\n" * (LARGEST_LABELS // 3 + 1), "too large for labels"),
    ],
)
def test_what_is_no_list_of_labels(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "l.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_labels(tmp_path / "l.txt")


def test_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UsageError, match="is no file of labels"):
            read_labels(path)
    with pytest.raises(UsageError, match="there is no file of labels"):
        read_labels(tmp_path / "none.txt")


def test_a_label_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("\x1b[2Jcat\n", encoding="utf-8")
    assert read_labels(tmp_path / "l.txt") == ("\\x1b[2Jcat",)


def test_statistics() -> None:
    assert normalisation_of(None, None) is None
    found = normalisation_of([0.5], [0.25])
    assert found is not None
    assert (found.mean, found.std, found.channels) == ((0.5,), (0.25,), 1)
    for mean, std in (([1.0], None), (None, [1.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(UsageError, match="go together"):
            normalisation_of(mean, std)
    for mean, std in (([float("nan")], [1.0]), ([0.0], [0.0]), ([0.0], [float("inf")])):
        with pytest.raises(UsageError, match="above 0"):
            normalisation_of(mean, std)
