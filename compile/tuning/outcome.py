"""What came of one run of the tuner: figures for a file, and sentences for a person."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.bundle.manifest_entries import Standalone
from shuffledeploy.compiler.bundle.precision_text import precision_text
from shuffledeploy.compiler.tuning.kept_schedules import KeptSchedules
from shuffledeploy.compiler.tuning.report.history import SearchResult
from shuffledeploy.compiler.tuning.score import Verdict


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes
    ----------
    bundle : Bundle
        What was built.
    device : str
        Where it was scored and checked.
    tasks, tasks_with_record : int
        Kernels worth tuning, and those whose record was applied.
    search : SearchResult
        What was tried in this run, and what came of it.
    seconds : float
        Time the search took.
    parity : Verdict or None
        ``None`` where no check was asked for.
    refused : int
        Records that did not fit their kernel.
    rejected : tuple of str
        Lines of the log that could not be used.
    borrowed : tuple of str
        Related targets whose records stand in for missing ones.
    fault : str or None
        Where parity does not hold: the operator or the pass that makes the network differ.
    shuffles : tuple of str
        Of each shuffle that is a kernel: which it is, and why.
    in_network : KeptSchedules or None
        What the search brought to the whole network, where that was timed.
    """

    bundle: Bundle
    device: str
    tasks: int
    tasks_with_record: int
    search: SearchResult
    seconds: float
    parity: Verdict | None
    refused: int
    rejected: tuple[str, ...]
    borrowed: tuple[str, ...] = ()
    fault: str | None = None
    shuffles: tuple[str, ...] = ()
    in_network: KeptSchedules | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields documented in the README."""
        manifest = self.bundle.manifest
        return {
            "network": manifest.network,
            "target": manifest.target,
            "precision": manifest.precision,
            "bundle": str(self.bundle.path),
            "kernels": manifest.kernel_calls,
            "shuffle_kernels": manifest.shuffle_kernels,
            "shuffles_left": list(self.shuffles),
            "kernels_by_strips": manifest.calls_by_strips,
            "tasks": self.tasks,
            "tasks_with_record": self.tasks_with_record,
            "trials": self.search.trials,
            "trials_per_second": self.search.trials / self.seconds if self.search.trials else None,
            "score_source": manifest.score_source,
            "records_refused": self.refused,
            "log_lines_rejected": len(self.rejected),
            "records_borrowed_from": list(self.borrowed),
            "device": self.device,
            "search": self.search.to_json(),
            "in_network": None if self.in_network is None else self.in_network.to_json(),
            "parity": None if self.parity is None else self.parity.to_json(),
            "fault": self.fault,
        }

    def sentences(self) -> Iterator[str]:
        """Say in words what came out."""
        manifest = self.bundle.manifest
        yield (
            f"{manifest.kernel_calls} kernel calls, {manifest.shuffle_kernels} of them shuffles, "
            f"{manifest.calls_by_strips} by strips; "
            f"{self.tasks_with_record} of {self.tasks} tasks with a tuning record"
        )
        for sentence in self.shuffles:
            yield f"a shuffle stays: {sentence}"
        yield f"computes in {precision_text(manifest)}"
        yield from self._records_sentences()
        if self.parity is not None:
            yield f"parity with PyTorch on {self.device} {self.parity.verdict}"
            if not self.parity.passed:
                yield f"first wrong kernel: {self.parity.first_wrong_kernel}"
            if self.fault is not None:
                yield f"what differs: {self.fault}"
        yield f"bundle: {self.bundle.path}"
        if manifest.standalone is not None:
            yield from self._standalone_sentences(manifest.standalone)

    def _records_sentences(self) -> Iterator[str]:
        """Tell where schedules came from: of this run, of other targets, of the log."""
        if self.borrowed:
            yield f"tasks without one use what was found for {', '.join(self.borrowed)}"
        if trials := self.search.trials:
            rate = trials / self.seconds
            yield f"tried {trials} candidates in {self.seconds:.0f} s ({rate:.1f} a second)"
        else:
            yield "nothing new to learn: no candidate was tried"
        if self.in_network is not None:
            yield self.in_network.sentence()
        for sentence in self.search.failed:
            yield f"no candidate worked of {sentence}"
        for sentence in self.search.warnings:
            yield f"warning: {sentence}"
        for sentence in self.rejected[:3]:
            yield f"log line not used: {sentence}"
        if len(self.rejected) > 3:
            yield f"... and {len(self.rejected) - 3} more log lines not used"
        if self.refused:
            yield f"{self.refused} records did not fit their kernels and were not used"

    def _standalone_sentences(self, made: Standalone) -> Iterator[str]:
        """Name the files that an app needs, and what else has their names."""
        folder = self.bundle.path
        if made.name != self.bundle.manifest.network:
            yield f"its names in C begin with {made.name}"
        yield f"an app needs two files: {self.bundle.app_files}"
        if made.apple_archive in self.bundle.manifest.files:
            yield f"on Apple's systems {made.apple_archive} takes the library's place"
        others = sorted(folder.resolve().parent.glob(f"*/{made.header}"))
        same = [other.parent.name for other in others if other.parent != folder.resolve()]
        if same:
            yield (
                f"{same[0]} has the same names in C: one program takes only one of them, unless"
                " one is built with --standalone NAME"
            )
