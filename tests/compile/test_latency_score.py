"""Candidates are timed as a network runs them."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
import tvm

from compile.tuning import latency_score
from compile.tuning.latency_score import REPEAT_MS, REPEATS, time_with_far_weights


class _Kernel:
    """Notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, *tensors: int) -> None:
        self.calls.append(tensors)


def test_weights_are_far_away_when_their_turn_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 1_000_000)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(clock))
    kernel = _Kernel()
    assert time_with_far_weights(kernel, (1, 2, 3), 1, (20, 21, 22)) == 1e6
    weights = [call[1] for call in kernel.calls]
    # Once to warm up, then all on the clock.
    assert weights[0] == 2
    assert weights[1:] == [2, 20, 21, 22] * (len(weights) // 4)
    assert {(call[0], call[2]) for call in kernel.calls} == {(1, 3)}
    assert len(weights) > REPEATS * REPEAT_MS


@pytest.mark.parametrize(("rows", "copies"), [(64, 256), (63, 0), (1 << 14, 0)])
def test_only_weights_that_a_cache_would_keep_take_turns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: int, copies: int
) -> None:
    """Small ones always stay in it, large ones never do."""
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    seen: list[int] = []
    monkeypatch.setattr(
        latency_score, "time_with_far_weights", lambda *call: seen.append(len(call[3])) or 1.0
    )
    monkeypatch.setattr(latency_score, "_least_mean", lambda *_: 2.0)
    monkeypatch.setattr(tvm.runtime, "load_module", lambda _: {"main": None})
    arguments = (((1, rows), "float32"), ((rows, 64), "float32"), ((1, 64), "float32"))
    latency = latency_score.time_library(str(tmp_path / "k.so"), arguments, 1)
    assert seen == ([copies] if copies else [])
    assert latency == (1.0 if copies else 2.0)
