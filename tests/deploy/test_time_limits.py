"""A call that is waited for no longer: what it gave is handed on, never lost."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import pytest

from shuffledeploy.deploy.devices.time_limits import within

pytestmark = pytest.mark.smoke


def test_what_comes_in_time_is_given_or_raised() -> None:
    late: list[str] = []
    assert within(10, lambda: "answer", late.append) == "answer"
    with pytest.raises(ValueError, match="invalid literal"):
        within(10, lambda: str(int("none")), late.append)
    assert late == []


def test_what_comes_late_is_handed_on() -> None:
    go, late = threading.Event(), queue.Queue[bool]()
    with pytest.raises(TimeoutError):
        within(0.01, lambda: go.wait(10), late.put)
    assert late.empty()
    go.set()
    assert late.get(timeout=10)


def test_what_comes_as_waiting_ends_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    wait, late = futures.wait, []

    def a_moment_too_short(calls: Sequence[futures.Future[Any]], _: float) -> tuple[Any, Any]:
        wait(calls, 10)
        return set(), set(calls)

    monkeypatch.setattr(futures, "wait", a_moment_too_short)
    with pytest.raises(TimeoutError):
        within(1, lambda: "session", late.append)
    assert late == ["session"]
    with pytest.raises(TimeoutError):
        within(1, lambda: str(int("none")), late.append)
    assert late == ["session"]
