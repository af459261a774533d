"""What of a batch is written down: the best, the shortlist, the trials it cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from tvm.s_tir import Schedule

from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.record_log import SHORTLIST, append
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record
from shuffledeploy.compiler.tuning.records.ties import instructions_of, leanest
from shuffledeploy.compiler.tuning.score import MEASURED_UNIT, details_of
from shuffledeploy.compiler.tuning.search.tasks import Progress
from shuffledeploy.compiler.tuning.search.trial_plan import Batch

# A gain of less than this part is none.
SMALL_GAIN = 0.005


@dataclasses.dataclass(frozen=True)
class Keeper:
    """Writes down what beats what is known, and the trials it cost."""

    log: Path
    unit: str
    source: str

    def __call__(self, batch: Batch, results: Sequence[float | str]) -> dict[str, bool]:
        """Have a batch on the disk; tell for each task, by its key, whether it gained."""
        gained, records = {}, []
        for state, places in batch.members():
            before = state.best.score if state.best is not None else math.inf
            records += self._of(
                state, [batch.schedules[i] for i in places], [results[i] for i in places]
            )
            after = state.best.score if state.best is not None else math.inf
            gained[state.task.key] = after < before * (1 - SMALL_GAIN)
        if records:
            append(self.log, records)
        return gained

    def _of(
        self, state: Progress, schedules: Sequence[Schedule], results: Sequence[float | str]
    ) -> list[Record]:
        """Give the records that a task's part of a batch is worth; the best comes last."""
        state.note_trials(results)
        total = len(results) + (state.best.trials if state.best is not None else 0)
        found = [
            (result, schedule)
            for schedule, result in zip(schedules, results, strict=True)
            if not isinstance(result, str)
        ]
        found.sort(key=lambda pair: pair[0])
        beaten = state.best.score if state.best is not None else math.inf
        lean = _leanest(state.best, [result for result, _ in found])
        fresh = [
            make_record(state.task.name, state.task.key, schedule, result, self.unit, self.source,
                        total)
            for place, (result, schedule) in enumerate(found)
            if (place == 0 and result < beaten) or place == lean
            or self._enters_shortlist(state, result, place)
        ]  # fmt: skip
        best = fresh.pop(0) if fresh and fresh[0].score < beaten else state.best
        if best is None:
            return []
        best = dataclasses.replace(best, trials=total)
        state.note_best(best, (record.score for record in (*fresh, best)), SHORTLIST)
        return [*fresh, best]

    def _enters_shortlist(self, state: Progress, result: float, place: int) -> bool:
        """Whether it is to be measured when a device appears; what is measured needs none."""
        if self.unit == MEASURED_UNIT or place >= SHORTLIST:
            return False
        return len(state.shortlist) < SHORTLIST or result < state.shortlist[-1]


def _leanest(best: Record | None, results: Sequence[float]) -> int | None:
    """Tell which result is to be compiled with; ``None`` if the best known is, or there is none."""
    known = [] if best is None else [(best.score, best.details)]
    scores = [*known, *((result, details_of(result)) for result in results)]
    if not scores:
        return None
    place = leanest([s for s, _ in scores], [instructions_of(d) for _, d in scores]) - len(known)
    return place if place >= 0 else None
