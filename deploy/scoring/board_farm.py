"""Candidates on many boards at once: who gets which, what becomes of boards that fail.

A trial that a board fails is tried once more, on another board where there is one. If it works
there, the first board was at fault; if not, the candidate was. A board at fault three times is set
aside. Boards may come and go: what is free is taken in while there is work, what is lost is missed
by nobody.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shuffledeploy.compiler.tuning.score import KernelObject
from shuffledeploy.model.errors import Failure

STRIKES = 3
ATTEMPTS = 2
# A session older than this is given back between two batches: boards end sessions after an hour,
# and others may want a turn.
RENEW_S = 300.0


class FarmBoard(Protocol):
    """A session with one board."""

    @property
    def address(self) -> str:
        """Tells it from the other boards."""

    def score(self, kernel: KernelObject) -> float | str:
        """Score a kernel, or say why it has none; a `Failure` if the board is lost."""

    def close(self) -> None:
        """Give it back."""


class Boards(Protocol):
    """Where boards come from."""

    def free(self) -> int:
        """How many could be taken now."""

    def take(self) -> FarmBoard:
        """Take one; a `Failure` where there is none after all."""

    def complaint(self, board: FarmBoard) -> str | None:
        """Why a board's scores cannot be used, if they cannot."""


@dataclass
class _Job:
    place: int
    kernel: KernelObject
    failed_on: list[str] = field(default_factory=list)
    reason: str = ""


@dataclass(eq=False)
class _Seat:
    """A board that is held, and the thread that works on it."""

    board: FarmBoard
    since: float = field(default_factory=time.monotonic)
    thread: threading.Thread | None = None
    lost: bool = False

    @property
    def is_idle(self) -> bool:
        return not self.lost and (self.thread is None or not self.thread.is_alive())


class BoardFarm:
    """Scores kernels on all boards that are to be had.

    Parameters
    ----------
    boards : Boards
        Where they come from.
    tell : Callable
        Told in a sentence of boards that are set aside, or missing.
    patience_s : float
        How long to wait for a board where there is none.
    poll_s : float
        How often to look for more.
    """

    def __init__(
        self, boards: Boards, tell: Callable[[str], None] = lambda _: None, *,
        patience_s: float = 60.0, poll_s: float = 1.0,
    ) -> None:  # fmt: skip
        self._boards, self._tell = boards, tell
        self._patience_s, self._poll_s = patience_s, poll_s
        self._seats: list[_Seat] = []
        self._parked: list[FarmBoard] = []
        self._aside: dict[str, str] = {}
        # Trials that failed here and worked elsewhere; that failed here twice, since the last that
        # worked; that are to be tried again elsewhere.
        self._proven: Counter[str] = Counter()
        self._suspected: Counter[str] = Counter()
        self._pending: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._looked = -1e9
        # Why the last board that was asked for could not be taken.
        self._refusal = ""
        self._closed = False

    @property
    def warnings(self) -> list[str]:
        """A sentence for each board that was set aside."""
        return [f"board {address} was set aside: {why}" for address, why in self._aside.items()]

    @property
    def size(self) -> int:
        """How many boards are held and work."""
        return sum(not seat.lost for seat in self._seats)

    def run(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Score kernels; in place of a score, why there is none.

        Raises
        ------
        Failure
            There has been no board for as long as one waits for it.
        """
        jobs = deque(_Job(place, kernel) for place, kernel in enumerate(kernels))
        results: list[float | str | None] = [None] * len(jobs)
        alone_since = time.monotonic()
        while any(result is None for result in results):
            if self._closed:
                raise Failure("the boards were given back")
            self._seats = [seat for seat in self._seats if not seat.lost]
            if len(jobs) > sum(seat.is_idle for seat in self._seats):
                self._take_in()
            for seat in self._seats:
                if seat.is_idle and jobs:
                    seat.thread = threading.Thread(
                        target=self._work, args=(seat, jobs, results), daemon=True
                    )
                    seat.thread.start()
            if self._seats:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > self._patience_s:
                refused = [f"the last one that was asked: {self._refusal}"] if self._refusal else []
                raise Failure("; ".join(["no board is left to score on", *refused, *self.warnings]))
            with self._changed:
                if any(result is None for result in results):
                    self._changed.wait(min(self._poll_s, 0.2))
        self._give_back_old()
        return [result for result in results if result is not None]

    def close(self) -> None:
        """Give all boards back; a run that is under way ends."""
        self._closed = True
        for board in [*(seat.board for seat in self._seats), *self._parked]:
            board.close()
        self._seats, self._parked = [], []

    def _take_in(self) -> None:
        """Take one more board where one is free."""
        now = time.monotonic()
        if now - self._looked < self._poll_s:
            return
        if not self._boards.free():
            self._looked = now
            return
        try:
            board = self._boards.take()
        except Failure as error:
            # It went away, or hangs: whatever else is free is asked for a while later.
            self._refusal = str(error)
            self._looked = now + 10 * self._poll_s
            return
        if board.address not in self._aside and (why := self._boards.complaint(board)):
            self._set_aside(board.address, why)
        if board.address in self._aside:
            # As long as we hold it the tracker offers us others.
            self._parked.append(board)
        else:
            self._seats.append(_Seat(board))

    def _work(self, seat: _Seat, jobs: deque[_Job], results: list[float | str | None]) -> None:
        """Score one kernel after the other on one board, until there are none or it is lost."""
        address = seat.board.address
        while True:
            with self._changed:
                job = None if seat.lost or self._closed else self._next(jobs, address)
            if job is None:
                return
            try:
                answer = seat.board.score(job.kernel)
            except Exception as error:
                with contextlib.suppress(Exception):
                    seat.board.close()
                with self._changed:
                    seat.lost = True
                    self._failed(job, address, str(error), jobs, results)
                    self._changed.notify_all()
                return
            with self._changed:
                self._worked(job, address)
                results[job.place] = answer
                self._changed.notify_all()

    def _next(self, jobs: deque[_Job], address: str) -> _Job | None:
        """Give a job that this board has not failed, or where it is alone any."""
        alone = sum(not seat.lost for seat in self._seats) == 1
        faults = self._proven[address] + self._suspected[address] + self._pending[address]
        if not alone and faults >= STRIKES:
            # Before it gets more to spoil, what it failed is tried elsewhere.
            return None
        for job in jobs:
            if alone or address not in job.failed_on:
                jobs.remove(job)
                return job
        return None

    def _worked(self, job: _Job, address: str) -> None:
        self._suspected[address] = 0
        for first in job.failed_on:
            self._pending[first] -= 1
            if first != address:
                self._strike(first, self._proven, job.reason)

    def _failed(
        self, job: _Job, address: str, reason: str, jobs: deque[_Job],
        results: list[float | str | None],
    ) -> None:  # fmt: skip
        job.reason = reason
        job.failed_on.append(address)
        first = job.failed_on[0]
        if len(job.failed_on) < ATTEMPTS:
            self._pending[first] += 1
            jobs.appendleft(job)
            return
        self._pending[first] -= 1
        results[job.place] = f"it failed twice on boards: {reason}"
        # Where two boards failed it, that is the candidate's fault, not theirs.
        if first == address:
            self._strike(address, self._suspected, reason)

    def _strike(self, address: str, counter: Counter[str], reason: str) -> None:
        counter[address] += 1
        if self._proven[address] + self._suspected[address] >= STRIKES:
            self._set_aside(address, f"{STRIKES} trials failed on it, the last: {reason}")

    def _set_aside(self, address: str, why: str) -> None:
        if address not in self._aside:
            self._aside[address] = why
            self._tell(f"board {address} is set aside: {why}")
        for seat in self._seats:
            if seat.board.address == address:
                seat.lost = True
                self._parked.append(seat.board)

    def _give_back_old(self) -> None:
        now = time.monotonic()
        for seat in [seat for seat in self._seats if now - seat.since > RENEW_S]:
            seat.board.close()
            self._seats.remove(seat)
