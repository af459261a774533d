"""Candidates are timed as a network runs them, and against each other."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shuffledeploy.compiler.tuning.score import KernelObject
from shuffledeploy.compiler.tuning.search import interleaved_timing, latency_score
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.compiler.tuning.search.interleaved_timing import FAR, LEAST_WEIGHTS, time_turns
from shuffledeploy.compiler.tuning.search.latency_score import LocalLatency

ARGUMENTS = (((1, 64), "float32"), ((64, 64), "float32"), ((1, 64), "float32"))


class _Kernel:
    """Notes what it is called with, and is timed by what the test says."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *tensors: Any) -> None:
        self.calls.append(tensors)


def test_calls_take_turns_where_the_last_ones_stopped() -> None:
    kernel, turns = _Kernel(), itertools.cycle([(1, 20), (1, 21), (1, 22)])
    assert time_turns(kernel, turns, 2) > 0
    time_turns(kernel, turns, 5)
    assert [weights for _, weights in kernel.calls] == [20, 21, 22, 20, 21, 22, 20]


@pytest.mark.parametrize("rows", [64, 100, 1000])
def test_weights_are_far_away_when_their_turn_comes_again(rows: int) -> None:
    shape = (rows, 65)
    assert math.prod(shape) * 4 >= LEAST_WEIGHTS
    weights = interleaved_timing._far_weights(shape)
    assert all(tuple(these.shape) == shape for these in weights)
    # Drawn numbers: memory that two share would hold the same.
    assert len({float(these.numpy()[0, 0]) for these in weights}) == len(weights)
    size = math.prod(shape) * 4
    assert len(weights) * size > FAR - 2 * size


class _Process(Workers):
    """Answers for the process that times: kernel 1 crashes it, the others are as fast as said."""

    def __init__(self, *, turns: object = None) -> None:
        super().__init__(1)
        self.asked: list[Any] = []
        self._turns = turns
        self.single: object = None
        self.waited: list[float] = []

    def warm_up(self) -> None:
        """Do nothing: there is no process."""

    def run_all(
        self, function: Any, calls: Sequence[tuple[Any, ...]], timeout_s: float
    ) -> list[Any]:
        if function is os.getpid:
            self.waited.append(timeout_s)
            return [1]
        assert self.waited, "the first kernel would pay for the process's start"
        if function is latency_score.run_once:
            return [None if "1" not in path else "it crashed its process" for path, _ in calls]
        self.asked.append(calls[0])
        if len(calls[0][0]) == 1 and self.single is not None:
            return [self.single]
        return [self._turns or [[3.0] * 15, [5.0] * 15]]


def _objects(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[KernelObject]:
    monkeypatch.setattr(latency_score, "link", lambda *_: None)
    return [KernelObject(folder / f"{i}.o", "main", ARGUMENTS, 1) for i in range(3)]


def test_a_kernel_that_crashes_alone_is_not_timed_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = _Process()
    kernels = _objects(Path("k"), monkeypatch)
    scores = LocalLatency(process, "a core")(kernels)
    assert scores == [pytest.approx(3.0), "it crashed its process", pytest.approx(5.0)]
    ((calls, _, _, weights),) = process.asked
    assert [Path(path).stem for path, _ in calls] == ["0", "2"]
    assert weights == [1, 1]


def test_each_kernel_takes_turns_with_its_own_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are cut by the schedule, all else is the kernel's."""
    first, _, third = _objects(Path("k"), monkeypatch)
    blocked = (ARGUMENTS[0], ((4, 64, 16), "float32"), ARGUMENTS[2])
    third = dataclasses.replace(third, arguments=blocked)
    other = KernelObject(Path("k/4.o"), "main", ARGUMENTS[:1] * 2)
    process = _Process(turns=[[3.0] * 15, [5.0] * 15])
    process.single = [[7.0] * 15]
    scores = LocalLatency(process, "a core")([first, other, third])
    assert scores == [pytest.approx(3.0), pytest.approx(7.0), pytest.approx(5.0)]
    assert [len(calls) for calls, *_ in process.asked] == [2, 1]


def test_where_the_turns_fail_no_kernel_has_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = _objects(Path("k"), monkeypatch)
    scores = LocalLatency(_Process(turns="no answer within 180 s"), "a core")(kernels)
    assert scores == [
        "no answer within 180 s", "it crashed its process", "no answer within 180 s",
    ]  # fmt: skip
