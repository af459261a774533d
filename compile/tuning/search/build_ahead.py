"""Builds the next candidates while those before them are scored."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.score import (
    MEASURED_UNIT,
    KernelObject,
    Score,
    checked_score,
    warnings_of,
)
from shuffledeploy.compiler.tuning.search.candidates import Workers, build_calls, run_builds
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

Built = list[KernelObject | str]
Results = list[float | str]


class BuildAhead:
    """One thread that sees to builds and one that scores: an `Evaluation`; a context manager.

    Parameters
    ----------
    score : Score
        Scores built candidates.
    target : CompileTarget
        What to build for.
    scratch : Path
        Where objects go, a folder a batch.
    workers : Workers
        Where candidates are built.
    """

    def __init__(
        self, score: Score, target: CompileTarget, scratch: Path, workers: Workers
    ) -> None:
        self._score, self._target = score, target
        self.source, self.unit = score.source, score.unit
        self._scratch, self._workers = scratch, workers
        self._builder = ThreadPoolExecutor(1, "builder")
        self._scorer = ThreadPoolExecutor(1, "scorer")
        self._folders = (scratch / str(number) for number in itertools.count())

    def __enter__(self) -> BuildAhead:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Drop what has not begun."""
        for threads in (self._builder, self._scorer):
            threads.shutdown(wait=False, cancel_futures=True)

    @property
    def warnings(self) -> Sequence[str]:
        """What the score has to say of its devices."""
        return warnings_of(self._score)

    def warm_up(self) -> None:
        """Have the workers import TVM."""
        self._workers.warm_up()

    def build(self, functions: Sequence[Any]) -> Future[Built]:
        """Start to build scheduled kernels."""
        folder = next(self._folders)
        folder.mkdir()
        # Written out here: TVM's objects stay in the thread that works with them.
        checks = self.unit != MEASURED_UNIT
        calls, kernels = build_calls(functions, self._target, folder, checks=checks)
        return self._builder.submit(run_builds, calls, kernels, self._workers)

    def score(self, built: Future[Built]) -> Future[Results]:
        """Start to score what was built, as soon as it is; in place of a score, why there is none.

        The result is a `Failure` if the device gives another number of answers than it was asked.
        """
        return self._scorer.submit(self._score_built, built)

    def _score_built(self, built: Future[Built]) -> Results:
        candidates = built.result()
        good = [kernel for kernel in candidates if isinstance(kernel, KernelObject)]
        answers = self._score(good) if good else []
        if len(answers) != len(good):
            raise Failure(f"the device gave {len(answers)} scores for {len(good)} candidates")
        scores = iter([checked_score(answer) for answer in answers])
        for folder in {kernel.path.parent for kernel in good}:
            shutil.rmtree(folder, ignore_errors=True)
        return [next(scores) if isinstance(k, KernelObject) else k for k in candidates]


@contextmanager
def evaluation_here(score: Score, target: CompileTarget, workers: Workers) -> Iterator[BuildAhead]:
    """Give what builds candidates in this machine's workers, and scores them by a score."""
    with (
        scratch_folder("candidates-") as scratch,
        BuildAhead(score, target, scratch, workers) as ahead,
    ):
        yield ahead
