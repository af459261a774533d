"""What boards, trackers and users say of devices: understood, or refused in a line."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shuffledeploy.deploy.devices.device_information import read_description
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.estimate.instruction_counts import fold
from shuffledeploy.model.errors import Failure, UsageError

GOOD: dict[str, Any] = {
    "tvm_version": "0.27.0", "architecture": "aarch64", "python": "3.11.2",
    "features": ["asimd", "fp"], "part": "0xd08", "pid": 7,
}  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = SCALARS | st.lists(SCALARS, max_size=4) | st.dictionaries(st.text(max_size=5), SCALARS)
NAMES = st.sampled_from(["rpc://", "tracker://", "emulated", ":", "/", "[::1]", "9090", "a", "-"])


@given(st.text(max_size=60) | st.lists(NAMES | st.text(max_size=4), max_size=8).map("".join))
def test_names(text: str) -> None:
    try:
        found = parse_device_name(text)
    except UsageError:
        return
    assert found.kind in ("local", "emulated", "rpc", "tracker")
    assert found.kind in ("local", "emulated") or 0 < found.port < 65536


@given(st.sampled_from(sorted(GOOD)), ANYTHING)
def test_descriptions(field: str, value: object) -> None:
    try:
        found = read_description(json.dumps({**GOOD, field: value}), None)
    except Failure:
        return
    assert found.architecture is not None
    assert found.architecture.isprintable()


@given(st.text(max_size=200))
def test_descriptions_of_any_text(text: str) -> None:
    try:
        read_description(text, None)
    except Failure as error:
        assert "says of itself" in str(error)


COUNT = "400 10 4 7\n1000 8 2 3\nmemory 1 2 3 4\nend\n"


@given(st.text(max_size=100) | st.tuples(st.integers(0, len(COUNT)), st.text(max_size=9)).map(
    lambda change: COUNT[: change[0]] + change[1] + COUNT[change[0] :]
))  # fmt: skip
def test_counts(report: str) -> None:
    try:
        fold(report, 0, None)
    except (ValueError, TypeError):
        # What `Device.count` turns into a line.
        return
