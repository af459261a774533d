"""Where a score comes from: the one thing about tuning that depends on a device.

A score is a positive number for one warmed call of a kernel, lower is better. Its `source` is
written into every record; scores of different sources are never compared or mixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    # Only named here: whoever scores kernels need not import TVM for it.
    from shuffledeploy.compiler.bundle.arrays import Array
    from shuffledeploy.compiler.bundle.folder import Bundle
    from shuffledeploy.compiler.targets import CompileTarget


@dataclasses.dataclass(frozen=True)
class KernelObject:
    """A candidate that was built.

    Attributes
    ----------
    path : Path
        Its relocatable object, for the target.
    symbol : str
        Entry point, in TVM's calling convention.
    arguments : tuple
        Shape and data type of each tensor it takes, outputs included.
    weights : int, optional
        Which of these are weights, where some are.
    """

    path: Path
    symbol: str
    arguments: tuple[tuple[tuple[int, ...], str], ...]
    weights: int | None = None


MEASURED_UNIT = "ns"
KINDS = ("estimate", "instructions", "latency")


class DetailedScore(float):
    """A score that knows more than its number.

    Attributes
    ----------
    details : Mapping
        Figures that go into the record beside it.
    """

    details: Mapping[str, float]

    def __new__(cls, value: float, details: Mapping[str, float]) -> DetailedScore:
        """Make a number that carries details."""
        score = super().__new__(cls, value)
        score.details = details
        return score

    def __getnewargs__(self) -> tuple[float, Mapping[str, float]]:  # type: ignore[override]
        """Let copies and pickles carry the details too."""
        return float(self), self.details


def details_of(score: float) -> Mapping[str, float]:
    """Return what a score knows beside its number."""
    return score.details if isinstance(score, DetailedScore) else {}


class Score(Protocol):
    """Scores built candidates on some device.

    Attributes
    ----------
    source : str
        What gave the score and how, with versions: part of a record's provenance.
    unit : str
        Such as ``instructions`` or ``ns``.
    """

    source: str
    unit: str

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Return a score for each kernel, or in its place why it has none."""


class Evaluation(Protocol):
    """Candidates in, scores out: all that a search knows of where they are built and scored.

    Attributes
    ----------
    source, unit : str
        Of its scores, as of a `Score`.
    """

    source: str
    unit: str

    @property
    def warnings(self) -> Sequence[str]:
        """Sentences for the end of a search, such as of a board or a machine that was set aside."""

    def warm_up(self) -> None:
        """Start what takes a while to start, and do not wait for it."""

    def build(self, functions: Sequence[Any]) -> Future[Any]:
        """Take up scheduled kernels (tirx.PrimFunc); the result is for `score` alone."""

    def score(self, built: Future[Any]) -> Future[list[float | str]]:
        """Give a score for each kernel of a call of `build`, or in its place why it has none.

        The result is a `Failure` if what scores them fails.
        """


@dataclasses.dataclass(frozen=True)
class NetworkTimes:
    """What a library of a network took, in turns with others: measured.

    Attributes
    ----------
    names : tuple of str
        Which function each call of the virtual machine runs, in the order of one inference.
    whole : tuple of float
        Nanoseconds of one inference, in each round.
    calls : tuple of tuple of float
        Nanoseconds of each call, in each round.
    """

    names: tuple[str, ...]
    whole: tuple[float, ...]
    calls: tuple[tuple[float, ...], ...]


# What nothing real scores: an answer beyond it is rubbish.
LARGEST_SCORE = 1e18


def checked_score(answer: object) -> float | str:
    """Take a device's answer for a score only if it can be one."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, float) and 0 < answer < LARGEST_SCORE:
        return answer
    return f"the device answered {answer!r}, which is no score"


def warnings_of(score: Score) -> tuple[str, ...]:
    """Return what a score has to say of its devices, such as a board that was set aside."""
    return tuple(getattr(score, "warnings", ()))


class Verdict(Protocol):
    """What a parity check found."""

    @property
    def passed(self) -> bool:
        """Whether it held."""

    @property
    def first_wrong_kernel(self) -> str | None:
        """After a failure, the first kernel that differs."""

    def to_json(self) -> dict[str, Any]:
        """Return the check's figures."""

    @property
    def verdict(self) -> str:
        """What was found, in a line."""


class Devices(Protocol):
    """What the tuner needs of devices; `deploy.scoring.tuning_devices` is one."""

    def default_name(self, target: CompileTarget) -> str:
        """Name the device that a target runs on where the user names none."""

    def score(
        self, target: CompileTarget, device: str, kind: str | None
    ) -> AbstractContextManager[Score]:
        """Give what scores candidates on a device; `kind` is one of `KINDS`, None the best."""

    def evaluation(
        self, target: CompileTarget, device: str, kind: str | None
    ) -> AbstractContextManager[Evaluation]:
        """Give what builds a search's candidates and scores them, here or on other machines."""

    def require(self, target: CompileTarget, device: str, kind: str | None) -> None:
        """Refuse now a device or a score that cannot be had, before a network is traced."""

    def check(self, bundle: Bundle, device: str) -> Verdict:
        """Run a bundle on a device and compare it with PyTorch."""

    def times_calls(self, device: str) -> bool:
        """Whether a device can time a network call by call."""

    def time_calls(
        self,
        libraries: Sequence[Path],
        inputs: Sequence[Array],
        device: str,
        threads: int,
        tell: Callable[[int, int], None],
    ) -> list[NetworkTimes]:
        """Time libraries of one network in turns; tells how many rounds of how many are done."""
