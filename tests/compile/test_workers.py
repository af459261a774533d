"""Warm processes: they stay, they are replaced when they die, and nothing is left of them."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from shuffledeploy.compiler.tuning.search import candidates
from shuffledeploy.compiler.tuning.search.candidates import Workers


@pytest.fixture
def light_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """Give workers that import nothing, for functions of the standard library."""
    monkeypatch.setattr(candidates, "_warm_up", os.getpid)
    with Workers(1) as workers:
        yield workers


@pytest.mark.smoke
def test_workers_stay_warm_and_leave_nothing_behind(light_workers: Workers) -> None:
    first = light_workers.run_all(os.getpid, [(), ()], 30.0)
    assert first == light_workers.run_all(os.getpid, [()], 30.0) * 2
    assert first[0] != os.getpid()
    light_workers.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(first[0], 0)
    light_workers.stop()


def test_a_worker_that_died_between_two_batches_is_replaced(light_workers: Workers) -> None:
    (pid,) = light_workers.run_all(os.getpid, [()], 30.0)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    (other,) = light_workers.run_all(os.getpid, [()], 30.0)
    assert isinstance(other, int)
    assert other != pid


def test_a_candidate_that_crashes_its_worker_fails_alone(light_workers: Workers) -> None:
    # Reading at address 0 is as sure a crash as any.
    calls = [(b"a",), (0,), (b"c",)]
    assert light_workers.run_all(ctypes.string_at, calls, 30.0) == [
        b"a", "it crashed its process", b"c",
    ]  # fmt: skip


def test_a_candidate_that_hangs_fails_alone_and_its_process_ends(light_workers: Workers) -> None:
    (pid,) = light_workers.run_all(os.getpid, [()], 30.0)
    results = light_workers.run_all(time.sleep, [(0.01,), (600.0,), (0.02,)], 3.0)
    assert results == [None, "no answer within 3 s", None]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_candidate_that_raises_says_why(light_workers: Workers) -> None:
    (reason, fine) = light_workers.run_all(os.listdir, [("/nowhere/at/all",), ("/",)], 30.0)
    assert "FileNotFoundError" in reason
    assert "/nowhere/at/all" in reason
    assert isinstance(fine, list)


def test_workers_end_when_the_run_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_warm_up", os.getpid)
    pids = []
    with pytest.raises(KeyboardInterrupt), Workers(1) as workers:
        pids += workers.run_all(os.getpid, [()], 30.0)
        hanging: Future[Any] = workers.submit(time.sleep, 600)
        assert not hanging.done()
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
