"""Candidates on many boards: all are used, bad ones set aside, coming and going harms nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shuffledeploy.compiler.tuning.score import KernelObject
from shuffledeploy.deploy.scoring.board_farm import STRIKES, BoardFarm, FarmBoard
from shuffledeploy.model.errors import Failure

pytestmark = [pytest.mark.smoke, pytest.mark.long]


def _kernels(count: int, first: int = 0) -> list[KernelObject]:
    return [KernelObject(Path(f"{first + i}.o"), "f", ()) for i in range(count)]


def _right(kernel: KernelObject) -> float:
    return float(kernel.path.stem) + 1


class _Board:
    """A board that answers what its behaviour says."""

    def __init__(self, lab: _Lab, address: str) -> None:
        self._lab, self.address, self.closed = lab, address, False

    def score(self, kernel: KernelObject) -> float | str:
        self._lab.enter(self.address)
        try:
            return self._lab.behaviours[self.address](kernel)
        finally:
            self._lab.leave()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self.address in self._lab.behaviours:
                self._lab.waiting.append(self.address)


class _Lab:
    """A tracker with boards in it."""

    def __init__(self, **behaviours: Callable[[KernelObject], float | str]) -> None:
        self.behaviours = behaviours
        self.waiting = list(behaviours)
        self.complaints: dict[str, str] = {}
        self.calls: dict[str, int] = {}
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def free(self) -> int:
        return len(self.waiting)

    def take(self) -> _Board:
        if not self.waiting:
            raise Failure("none is free")
        return _Board(self, self.waiting.pop(0))

    def complaint(self, board: FarmBoard) -> str | None:
        return self.complaints.get(board.address)

    def enter(self, address: str) -> None:
        with self._lock:
            self.calls[address] = self.calls.get(address, 0) + 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)

    def leave(self) -> None:
        with self._lock:
            self.at_once -= 1


def _slow(kernel: KernelObject) -> float:
    time.sleep(0.02)
    return _right(kernel)


def _dead(kernel: KernelObject) -> float:
    raise Failure("the connection was lost")


def _farm(lab: _Lab, said: list[str] | None = None) -> BoardFarm:
    tell = said.append if said is not None else lambda _: None
    return BoardFarm(lab, tell, patience_s=0.5, poll_s=0.01)


def test_all_boards_work_at_once_and_answers_keep_their_places() -> None:
    lab = _Lab(a=_slow, b=_slow, c=_slow, d=_slow)
    farm = _farm(lab)
    kernels = _kernels(40)
    assert farm.run(kernels) == [_right(kernel) for kernel in kernels]
    assert lab.most_at_once == 4
    assert set(lab.calls) == set("abcd")
    farm.close()
    assert sorted(lab.waiting) == list("abcd")


def test_a_reason_is_an_answer_and_no_fault_of_the_board() -> None:
    lab = _Lab(a=lambda kernel: "the kernel returned an error")
    farm = _farm(lab)
    assert farm.run(_kernels(10)) == ["the kernel returned an error"] * 10
    assert farm.warnings == []


def test_a_board_that_fails_thrice_is_set_aside_and_named_and_nothing_is_lost() -> None:
    lab, said = _Lab(bad=_dead, good=_slow), list[str]()
    farm = _farm(lab, said)
    for start in range(0, 60, 12):
        kernels = _kernels(12, start)
        assert farm.run(kernels) == [_right(kernel) for kernel in kernels]
    assert STRIKES <= lab.calls["bad"] <= 2 * STRIKES
    (warning,) = farm.warnings
    assert "board bad was set aside" in warning
    assert "the connection was lost" in warning
    assert len(said) == 1
    farm.close()
    # Others may try it: it is not kept from them.
    assert "bad" in lab.waiting


def test_a_candidate_that_kills_boards_is_blamed_not_they() -> None:
    def crashes(kernel: KernelObject) -> float:
        if int(kernel.path.stem) % 2:
            raise Failure("the connection was lost")
        return _slow(kernel)

    lab = _Lab(a=crashes, b=crashes, c=crashes)
    farm = _farm(lab)
    results = farm.run(_kernels(16))
    assert results[::2] == [float(i + 1) for i in range(0, 16, 2)]
    assert all("failed twice" in str(result) for result in results[1::2])
    assert farm.warnings == []


def test_a_board_that_comes_later_is_taken_in() -> None:
    lab = _Lab(a=_slow)
    lab.behaviours["late"] = _slow
    farm = _farm(lab)

    def arrive() -> None:
        lab.waiting.append("late")

    timer = threading.Timer(0.1, arrive)
    timer.start()
    kernels = _kernels(40)
    assert farm.run(kernels) == [_right(kernel) for kernel in kernels]
    assert lab.calls["late"] > 1


def test_a_board_that_goes_for_good_is_missed_by_nobody() -> None:
    lab = _Lab(a=_slow)

    def goes(kernel: KernelObject) -> float:
        if lab.calls["b"] > 2:
            del lab.behaviours["b"]
            raise Failure("the connection was lost")
        return _slow(kernel)

    lab.behaviours["b"] = goes
    lab.waiting.append("b")
    farm = _farm(lab)
    kernels = _kernels(30)
    assert farm.run(kernels) == [_right(kernel) for kernel in kernels]
    assert lab.calls["b"] == 3


def test_without_any_board_the_run_ends_and_says_which_were_set_aside() -> None:
    farm = _farm(_Lab(a=_dead))
    with pytest.raises(Failure, match=r"no board is left.*board a was set aside"):
        farm.run(_kernels(5))


def test_a_board_that_does_not_fit_is_never_asked() -> None:
    lab = _Lab(other=_right, good=_slow)
    lab.complaints["other"] = "its core is cortex-a53"
    farm = _farm(lab)
    kernels = _kernels(20)
    assert farm.run(kernels) == [_right(kernel) for kernel in kernels]
    assert "other" not in lab.calls
    assert farm.warnings == ["board other was set aside: its core is cortex-a53"]


def test_a_run_that_is_interrupted_takes_no_more_boards() -> None:
    lab = _Lab(a=_slow)
    farm = _farm(lab)
    failures: list[Failure] = []

    def run() -> None:
        try:
            farm.run(_kernels(500))
        except Failure as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    while not lab.calls:
        time.sleep(0.01)
    farm.close()
    thread.join(2)
    assert not thread.is_alive()
    assert "given back" in str(failures[0])
    assert lab.waiting == ["a"]


def test_why_boards_cannot_be_taken_is_told() -> None:
    lab = _Lab()
    lab.free = lambda: 1  # type: ignore[method-assign]
    farm = BoardFarm(lab, patience_s=0.3, poll_s=0.01)
    with pytest.raises(Failure, match=r"no board is left.*last one.* asked: none is free"):
        farm.run(_kernels(1))
