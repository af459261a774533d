"""One candidate on its way to a machine of a cluster, and its score on the way back: as JSON.

::

    the search                    a thread of the machine          its warm process
    CandidateTask  --JSON-->      evaluate_candidate   ------->    build_task: module -> object
    CandidateAnswer <--JSON--     its folder, time limits <----    score_task: object -> score

A candidate that crashes or hangs ends the warm process, as it does on the search's own machine, and
not the machine's part in the cluster.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path

import msgspec

from shuffledeploy.compiler.tuning.records.record import ESTIMATED_UNIT
from shuffledeploy.compiler.tuning.score import DetailedScore, KernelObject, Score
from shuffledeploy.compiler.tuning.search.candidates import (
    BUILD_TIMEOUT_S,
    Workers,
    build_candidate,
)
from shuffledeploy.deploy.scoring.machine_facts import MachineFacts, facts_of_this_machine
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.scratch import scratch_folder

# A kernel that runs for long is ended by the score itself, which says so.
SCORE_TIMEOUT_S = 180.0
_threads = threading.local()


class CandidateTask(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate, and all that a machine has to know to build and score it.

    Attributes
    ----------
    module : str
        The scheduled kernel, as `tvm.ir.save_json` writes it.
    target : msgspec.Raw
        The `CompileTarget` that it is built for.
    checks : bool
        Whether the kernel checks its arguments.
    symbol, arguments, weights
        Of its `KernelObject`.
    core : str
        The core that is emulated.
    unit, source : str
        Of the score: a machine whose own would be another one does not score.
    facts : MachineFacts
        Of the search's machine.
    """

    module: str
    target: msgspec.Raw
    checks: bool
    symbol: str
    arguments: tuple[tuple[tuple[int, ...], str], ...]
    weights: int | None
    core: str
    unit: str
    source: str
    facts: MachineFacts


class CandidateAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a candidate; one of `score`, `reason` and `unfit` is given.

    Attributes
    ----------
    score, details : float, dict
        Of a candidate that has a score.
    reason : str
        Why the candidate has none.
    unfit : str
        Why this machine's scores cannot be used beside those of the search's machine.
    """

    score: float | None = None
    details: dict[str, int | float] | None = None
    reason: str = ""
    unfit: str = ""

    @property
    def result(self) -> float | str:
        """The score as a `Score` gives it, or why there is none."""
        if self.score is None:
            return self.reason or "the machine answered nothing"
        return self.score if self.details is None else DetailedScore(self.score, self.details)


def evaluate_candidate(task: bytes) -> bytes:
    """Build and score a candidate in this thread's own warm process (runs on the machine).

    Parameters
    ----------
    task : bytes
        A `CandidateTask` in JSON.

    Returns
    -------
    bytes
        A `CandidateAnswer` in JSON.
    """
    wanted = msgspec.json.decode(task, type=CandidateTask)
    unlike = wanted.facts.difference_from(facts_of_this_machine())
    if unlike is not None:
        return msgspec.json.encode(CandidateAnswer(unfit=unlike))
    # Of this thread: a process ends with the thread that started it.
    workers = _threads.workers = getattr(_threads, "workers", None) or Workers(1)
    with scratch_folder("candidate-") as folder:
        call = (task, str(folder / "candidate.o"))
        (built,) = workers.run_all(build_task, [call], BUILD_TIMEOUT_S)
        if isinstance(built, str):
            return msgspec.json.encode(CandidateAnswer(reason=built))
        (answer,) = workers.run_all(score_task, [call], SCORE_TIMEOUT_S)
        if isinstance(answer, str):
            return msgspec.json.encode(CandidateAnswer(reason=answer))
        assert isinstance(answer, bytes)
        return answer


def build_task(task: bytes, path: str) -> None:
    """Build the candidate of a task into an object file at a path (runs in the warm process)."""
    from shuffledeploy.compiler.targets import CompileTarget

    wanted = msgspec.json.decode(task, type=CandidateTask)
    target = msgspec.json.decode(wanted.target, type=CompileTarget)
    build_candidate(wanted.module, target, path, wanted.checks)


def score_task(task: bytes, path: str) -> bytes:
    """Score the object that `build_task` wrote; a `CandidateAnswer` (runs in the warm process)."""
    wanted = msgspec.json.decode(task, type=CandidateTask)
    try:
        score = _score(wanted.unit, wanted.core)
    except (Failure, UsageError) as error:
        return msgspec.json.encode(CandidateAnswer(unfit=f"it cannot score: {error}"))
    if score.source != wanted.source:
        unfit = f"its scores are of another source ({score.source}, here {wanted.source})"
        return msgspec.json.encode(CandidateAnswer(unfit=unfit))
    kernel = KernelObject(Path(path), wanted.symbol, wanted.arguments, wanted.weights)
    (found,) = score([kernel])
    if isinstance(found, str):
        answer = CandidateAnswer(reason=found)
    else:
        details = dict(found.details) if isinstance(found, DetailedScore) else None
        answer = CandidateAnswer(float(found), details)
    return msgspec.json.encode(answer)


@functools.cache
def _score(unit: str, core: str) -> Score:
    from shuffledeploy.deploy.board.guests import guest_of
    from shuffledeploy.deploy.scoring.scores import CountedInstructions, EstimatedCycles

    if unit == ESTIMATED_UNIT:
        return EstimatedCycles(guest_of(core), core, 1)
    return CountedInstructions(core, 1)
