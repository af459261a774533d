"""A search's candidates on a cluster: built and scored by whichever machine is free."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.score import Score, checked_score
from shuffledeploy.compiler.tuning.search.candidates import build_calls
from shuffledeploy.deploy.scoring.candidate_task import (
    CandidateAnswer,
    CandidateTask,
    evaluate_candidate,
)
from shuffledeploy.deploy.scoring.dask_cluster import DaskCluster
from shuffledeploy.deploy.scoring.machine_facts import facts_of_this_machine
from shuffledeploy.model.errors import Failure

if TYPE_CHECKING:
    from distributed import Future as DaskFuture

# Machines that may die under a candidate before the candidate is taken to be what ends them.
MOST_DEATHS = 3


@dataclasses.dataclass
class _Errand:
    """A candidate that is under way.

    Attributes
    ----------
    task : bytes
        A `CandidateTask` in JSON.
    future : distributed.Future
        Of the call that has it at present.
    deaths : int
        Machines that died under it.
    result : float, str or None
        Its score, or why it has none; None until one of them is known.
    """

    task: bytes
    future: DaskFuture[Any]
    deaths: int = 0
    result: float | str | None = None


class ClusterEvaluation:
    """Hands candidates to a cluster: an `Evaluation`; a context manager.

    Parameters
    ----------
    cluster : DaskCluster
        The machines that build and score.
    target : CompileTarget
        What to build for.
    core : str
        The core that is emulated.
    score : Score
        This machine's own score of that core: whatever has another source is not used.
    """

    def __init__(
        self, cluster: DaskCluster, target: CompileTarget, core: str, score: Score
    ) -> None:
        self._cluster, self._target, self._core = cluster, target, core
        self.source, self.unit = score.source, score.unit
        self._under_way: list[_Errand] = []
        self._gatherer = ThreadPoolExecutor(1, "gatherer")
        self._ended = False

    def __enter__(self) -> ClusterEvaluation:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Forget what is under way."""
        self._ended = True
        self._cluster.cancel([errand.future for errand in self._under_way])
        self._gatherer.shutdown(wait=True, cancel_futures=True)

    @property
    def warnings(self) -> Sequence[str]:
        """A sentence for each machine that is not used."""
        return tuple(self._cluster.warnings)

    def warm_up(self) -> None:
        """Do nothing: machines import TVM for their first candidate, and stay warm."""

    def build(self, functions: Sequence[Any]) -> Future[Any]:
        """Send scheduled kernels off, to be built and scored at once."""
        calls, kernels = build_calls(functions, self._target, Path())
        target, facts = msgspec.Raw(msgspec.json.encode(self._target)), facts_of_this_machine()
        errands = []
        for (module, _, _, checks), kernel in zip(calls, kernels, strict=True):
            task = CandidateTask(
                module=str(module), target=target, checks=checks, symbol=str(kernel.symbol),
                arguments=kernel.arguments, weights=kernel.weights, core=self._core,
                unit=self.unit, source=self.source, facts=facts,
            )  # fmt: skip
            text = msgspec.json.encode(task)
            errands.append(_Errand(text, self._cluster.submit(evaluate_candidate, text)))
        self._under_way += errands
        sent: Future[Any] = Future()
        sent.set_result(errands)
        return sent

    def score(self, built: Future[Any]) -> Future[list[float | str]]:
        """Wait for the scores of what was sent off."""
        return self._gatherer.submit(self._gather, built.result())

    def _gather(self, errands: Sequence[_Errand]) -> list[float | str]:
        while waiting := [errand for errand in errands if errand.result is None]:
            if self._ended:
                raise Failure("the search has ended")
            for errand in waiting:
                if errand.future.done():
                    self._take(errand)
            if under_way := [errand.future for errand in waiting if errand.result is None]:
                self._cluster.wait(under_way)
        self._under_way = [errand for errand in self._under_way if errand.result is None]
        return [errand.result for errand in errands if errand.result is not None]

    def _take(self, errand: _Errand) -> None:
        """Take the answer of a call that ended, or send the candidate off once more."""
        found = self._cluster.answer(errand.future)
        if found is None:
            errand.deaths += 1
            if errand.deaths >= MOST_DEATHS:
                errand.result = "each machine that it was sent to ended"
                return
        else:
            machine, text = found
            answer = msgspec.json.decode(text, type=CandidateAnswer)
            if not answer.unfit:
                errand.result = checked_score(answer.result)
                return
            self._cluster.set_aside(machine, answer.unfit)
        errand.future = self._cluster.submit(evaluate_candidate, errand.task)
