"""Lines of tuning logs with anything in them: a record, or a line that is named and skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shuffledeploy.compiler.tuning.records.plain_traces import require_plain
from shuffledeploy.compiler.tuning.records.record import LONGEST_TEXT
from shuffledeploy.compiler.tuning.records.record_log import read_log
from shuffledeploy.compiler.tuning.request import LOG_FOLDER

LOG = LOG_FOLDER / "cortex-a72" / "records.jsonl"
LINES = [json.loads(line) for line in LOG.read_text().splitlines()[:40]]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["pragma_import_c", "Annotate", "v1", "b0", 10**9, -1, "\x1b", "[/x]"])
)  # fmt: skip
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=8)


@st.composite
def edited(draw: st.DrawFn) -> dict[str, Any]:
    """Change a committed record at some places."""
    record: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from(LINES))))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = record
        key: Any = draw(st.sampled_from(sorted(record)))
        while isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 9)):
            place = place[key]
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(keys))
        place[key] = draw(ANYTHING)
    return record


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "records.jsonl"


def _check(log: Path, content: bytes) -> None:
    log.write_bytes(content)
    found = read_log(log)
    for record in found.records:
        assert 0 < record.score < 1e30
        texts = (record.kernel, record.key, record.unit, record.source)
        assert all(text.isprintable() and len(text) <= LONGEST_TEXT for text in texts)
        require_plain(record.trace)
    assert all(line.isprintable() for line in found.rejected)
    # What was read can be used: nothing in it is compared or sorted that cannot be.
    assert set(found.preferred) == set(found.best)


@given(record=edited() | ANYTHING)
def test_lines(log: Path, record: Any) -> None:
    _check(log, (json.dumps(record) + "\n").encode())


@given(content=st.binary(max_size=400))
def test_bytes(log: Path, content: bytes) -> None:
    _check(log, content)


@given(data=st.data())
def test_damage(log: Path, data: st.DataObject) -> None:
    line = bytearray(json.dumps(data.draw(st.sampled_from(LINES))).encode())
    at = data.draw(st.integers(0, len(line)))
    line[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    _check(log, bytes(line))
