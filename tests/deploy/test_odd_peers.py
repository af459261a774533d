"""Boards and trackers that answer rubbish, nothing, or too much: a line each, in bounded time."""

from __future__ import annotations

import json
import socket
import struct
import time

import pytest
from odd_peers import SERVER_MAGIC, TRACKER_MAGIC, Peer, listening

from shuffledeploy.deploy.devices import sessions, trackers
from shuffledeploy.deploy.devices.device_information import DeviceInformation, read_description
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.devices.opening import attach, open_device
from shuffledeploy.deploy.devices.trackers import Tracker
from shuffledeploy.model.errors import Failure


def silent(peer: socket.socket) -> None:
    peer.recv(1 << 16)
    time.sleep(5)


def closing(_: socket.socket) -> None:
    pass


def garbage(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)
    time.sleep(0.2)


def half(magic: int) -> Peer:
    def answer(peer: socket.socket) -> None:
        peer.recv(64)
        peer.sendall(struct.pack("<i", magic)[:2])

    return answer


def huge(magic: int) -> Peer:
    """Greet as one should, then announce two thousand million bytes."""

    def answer(peer: socket.socket) -> None:
        peer.recv(64)
        peer.sendall(struct.pack("<i", magic) + struct.pack("<i", 2_000_000_000) + b"x" * 100)
        time.sleep(0.3)

    return answer


def telling(text: str) -> Peer:
    """Be a tracker that answers one question with a text."""

    def answer(peer: socket.socket) -> None:
        peer.recv(64)
        peer.sendall(struct.pack("<i", TRACKER_MAGIC))
        while peer.recv(1 << 16):
            message = text.encode()
            peer.sendall(struct.pack("<i", len(message)) + message)

    return answer


BOARDS: dict[str, Peer] = {
    "silent": silent, "closing": closing, "garbage": garbage, "half": half(SERVER_MAGIC),
    "huge": huge(SERVER_MAGIC), "a tracker": half(TRACKER_MAGIC),
}  # fmt: skip
TRACKERS: dict[str, Peer] = {
    "silent": silent, "closing": closing, "garbage": garbage, "half": half(TRACKER_MAGIC),
    "huge": huge(TRACKER_MAGIC), "a board": half(SERVER_MAGIC),
    "no JSON": telling("rubbish"), "a number": telling("7"), "an error": telling("[1, {}]"),
    "no boards": telling("[0, {}]"), "odd boards": telling('[0, {"server_info": [7]}]'),
    "odd keys": telling('[0, {"server_info": [{"key": "server:\\u001b[2J[/x]"}]}]'),
}  # fmt: skip


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CONNECT_S", 1.5)
    monkeypatch.setattr(trackers, "ANSWERS_WITHIN_S", 1.5)


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_that_is_none_is_a_failure_in_bounded_time(name: str) -> None:
    with listening(BOARDS[name]) as port:
        began = time.monotonic()
        with pytest.raises(Failure) as told:
            attach(parse_device_name(f"rpc://127.0.0.1:{port}"), 2.0)
        assert time.monotonic() - began < 10
        assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_none_is_a_failure_in_bounded_time(name: str) -> None:
    with listening(TRACKERS[name]) as port:
        tracker = Tracker(parse_device_name(f"tracker://127.0.0.1:{port}/phone"))
        began = time.monotonic()
        with pytest.raises(Failure) as told:
            tracker.require_boards()
        assert tracker.free() == 0
        with pytest.raises(Failure), open_device(f"tracker://127.0.0.1:{port}/phone"):
            pass
        assert time.monotonic() - began < 15
        assert len(str(told.value).splitlines()) == 1


GOOD = {
    "tvm_version": "0.27.0", "architecture": "aarch64", "server": "native",
    "features": ["asimd", "fp"], "part": "0xd08", "pid": 7,
    "emulated": False, "counts": False, "core": 3, "name": "Pi",
}  # fmt: skip
ODD = {
    "no object": "[]", "no JSON": "{", "nothing": "{}",
    "more": json.dumps({**GOOD, "more": 1}),
    "a number for a version": json.dumps({**GOOD, "tvm_version": 27}),
    "an escape": json.dumps({**GOOD, "architecture": "\x1b[2J"}),
    "markup": json.dumps({**GOOD, "tvm_version": "[/x]"}),
    "a text for a list": json.dumps({**GOOD, "features": "asimd"}),
    "a long list": json.dumps({**GOOD, "features": ["x"] * 10_000}),
    "a long text": json.dumps({**GOOD, "tvm_version": "1" * 10_000}),
    "no number": json.dumps({**GOOD, "part": "d08x"}),
    "nothing of emulation": json.dumps({k: v for k, v in GOOD.items() if k != "emulated"}),
    "an escape for a name": json.dumps({**GOOD, "name": "\x1b[2J"}),
    "deep": "[" * 100_000,
}  # fmt: skip


@pytest.mark.smoke
def test_what_a_board_says_of_itself_is_read() -> None:
    assert read_description(json.dumps(GOOD), None) == DeviceInformation(
        "0.27.0", "aarch64", "cortex-a72", ("asimd", "fp"),
        is_emulated=False, can_count=False, pinned_core=3, name="Pi",
    )  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize("name", ODD)
def test_odd_descriptions_are_refused(name: str) -> None:
    with pytest.raises(Failure, match="says of itself"):
        read_description(ODD[name], None)
