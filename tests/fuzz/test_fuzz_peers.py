"""What boards, trackers and users say of devices: understood, or refused in a line."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_peers import SERVER_MAGIC, TRACKER_MAGIC, listening

from shuffledeploy.deploy.devices.device_information import read_description
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.devices.opening import attach
from shuffledeploy.deploy.devices.trackers import Tracker
from shuffledeploy.deploy.estimate.instruction_counts import fold
from shuffledeploy.deploy.runner.runner_answer import read_answer
from shuffledeploy.model.errors import Failure, UsageError

GOOD: dict[str, Any] = {
    "tvm_version": "0.27.0", "architecture": "aarch64", "server": "native",
    "features": ["asimd", "fp"], "part": "0xd08", "pid": 7,
    "emulated": False, "counts": False, "core": 3, "name": "Pi",
}  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = SCALARS | st.lists(SCALARS, max_size=4) | st.dictionaries(st.text(max_size=5), SCALARS)
NAMES = st.sampled_from(
    ["rpc://", "tracker://", "ssh://", "adb", "emulated", ":", "/", "@", "[::1]", "9090", "a", "-"]
)


@given(st.text(max_size=60) | st.lists(NAMES | st.text(max_size=4), max_size=8).map("".join))
def test_names(text: str) -> None:
    try:
        found = parse_device_name(text)
    except UsageError:
        return
    assert found.kind in ("local", "emulated", "adb", "ssh", "rpc", "tracker")
    assert found.kind not in ("rpc", "tracker") or 0 < found.port < 65536
    # These are handed to programs, which must not take them for options.
    assert not any(word.startswith("-") for word in (found.host, found.user, found.serial))


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


GREETINGS = st.sampled_from([
    struct.pack("<i", SERVER_MAGIC), struct.pack("<i", TRACKER_MAGIC), struct.pack("<i", 2**31 - 1),
    struct.pack("<i", -1), struct.pack("<i", 3), b"key", b'[0, {"server_info": []}]', b"\0" * 9,
])  # fmt: skip


@given(answer=st.lists(GREETINGS | st.binary(max_size=12), max_size=6).map(b"".join))
@settings(max_examples=40)
def test_whoever_answers(answer: bytes) -> None:
    def peer(connected: socket.socket) -> None:
        connected.recv(64)
        connected.sendall(answer)

    with listening(peer) as port:
        with pytest.raises(Failure) as board:
            attach(parse_device_name(f"rpc://127.0.0.1:{port}"), 2.0)
        tracker = Tracker(parse_device_name(f"tracker://127.0.0.1:{port}/phone"))
        with pytest.raises(Failure) as told:
            tracker.require_boards()
    assert all(len(str(error.value).splitlines()) == 1 for error in (board, told))


RUN: dict[str, Any] = {
    "network": "n", "emulated": False,
    "cases": [{"errors": [1e-6], "top1": True, "top5": True}],
    "before": {"core": 1, "present_khz": 1, "highest_khz": 1, "millidegrees": None},
    "after": None,
    "latency": {"median_ms": 1.0, "p10_ms": 1.0, "p90_ms": 1.0, "runs": 3, "cold": False},
    "kernels": [{"name": "k", "median_ms": 0.5}],
}  # fmt: skip


@given(st.sampled_from(sorted(RUN)), ANYTHING)
def test_runners(field: str, value: object) -> None:
    try:
        found = read_answer(json.dumps({**RUN, field: value}), "a phone")
    except Failure as error:
        assert "what the runner says cannot be read" in str(error)
        return
    assert not (found.emulated and (found.latency or found.kernels))
    assert all(case.errors for case in found.cases)


@given(st.text(max_size=200))
def test_runners_of_any_text(text: str) -> None:
    try:
        read_answer(text, "a phone")
    except Failure as error:
        assert "cannot be read" in str(error)
