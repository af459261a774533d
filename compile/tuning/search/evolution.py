"""MetaSchedule's evolutionary search over one kernel's forms, steered by its XGBoost cost model."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm_ffi import structural_hash

from shuffledeploy.compiler.ir.tvm_edges import without_gpu_intrinsics
from shuffledeploy.compiler.kernels.schedules import forms
from shuffledeploy.compiler.kernels.tiling import Choose, Core

without_gpu_intrinsics()

# Scores are turned into these for the cost model, which wants run times.
SECONDS_PER_UNIT = 1e-9
WORST = 1e10


class CostModel:
    """MetaSchedule's XGBoost model, shared by all tasks of one run.

    Until it has seen enough it answers with NumPy's global random numbers: it is given its own,
    and leaves those of the program as they were.

    Parameters
    ----------
    seed : int
        The same seed and the same scores give the same answers.
    """

    def __init__(self, seed: int) -> None:
        self.model = ms.cost_model.XGBModel(
            num_warmup_samples=32, verbose_eval=0, num_tuning_cores=1
        )
        self._numbers = np.random.RandomState(seed % (1 << 32)).get_state()

    @contextmanager
    def own_numbers(self) -> Iterator[None]:
        """Let the model draw within a block."""
        others = np.random.get_state()
        np.random.set_state(self._numbers)
        try:
            yield
        finally:
            self._numbers = np.random.get_state()
            np.random.set_state(others)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A schedule to be scored."""

    schedule: Schedule
    measure: Any


class TaskSearch:
    """Proposes schedules for one kernel and learns from their scores.

    Parameters
    ----------
    function : tirx.PrimFunc
        The kernel, unscheduled.
    core : Core
        What its forms need to know of the target.
    target : tvm.target.Target
        For the cost model's features.
    cost_model : CostModel
        Learns from all tasks.
    seed : int
        The same seed and the same scores give the same proposals.
    """

    def __init__(
        self,
        function: tirx.PrimFunc,
        core: Core,
        target: tvm.target.Target,
        cost_model: CostModel,
        seed: int,
        *,
        batch: int,
    ) -> None:
        module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        self.seen: set[int] = set()
        self._cost_model = cost_model
        self._context = ms.TuneContext(
            module,
            target=target,
            space_generator=ms.space_generator.ScheduleFn(
                lambda schedule: _design_spaces(schedule, function, core), [], [], {}
            ),
            search_strategy=ms.search_strategy.EvolutionarySearch(
                population_size=64, init_min_unmeasured=16, genetic_num_iters=1,
            ),
            task_name="main", rand_state=seed, num_threads=1, logger=_quiet_logger(),
        )  # fmt: skip
        database = ms.database.MemoryDatabase()
        self._workload = database.commit_workload(module)
        self._database = database
        spaces = self._context.generate_design_space()
        self._context.pre_tuning(1 << 20, batch, spaces, database, cost_model.model)

    def propose(self) -> list[Candidate]:
        """Return the next batch of schedules not proposed before; empty when there are no more."""
        for _ in range(4):
            with self._cost_model.own_numbers():
                proposals = self._context.generate_measure_candidates()
            if not proposals:
                return []
            fresh = []
            for proposal in proposals:
                identity = structural_hash(proposal.sch.mod)
                if identity not in self.seen:
                    self.seen.add(identity)
                    fresh.append(Candidate(proposal.sch, proposal))
            if fresh:
                return fresh
            self._tell(list(proposals), [WORST] * len(proposals))
        return []

    def report(self, candidates: Sequence[Candidate], scores: Sequence[float | None]) -> None:
        """Tell the search and its cost model what came of a batch; ``None`` is a failure."""
        measured = [WORST if score is None else score for score in scores]
        candidates = list(candidates)
        proposals = [candidate.measure for candidate in candidates]
        results = self._tell(proposals, measured)
        self._cost_model.model.update(self._context, proposals, results)
        for candidate, score in zip(candidates, scores, strict=True):
            if score is not None:
                seconds = [score * SECONDS_PER_UNIT]
                self._database.commit_tuning_record(ms.database.TuningRecord(
                    candidate.schedule.trace, self._workload, seconds,
                    self._context.target, candidate.measure.args_info,
                ))  # fmt: skip

    def _tell(self, proposals: list[Any], scores: Sequence[float]) -> list[Any]:
        results = [ms.runner.RunnerResult([score * SECONDS_PER_UNIT], None) for score in scores]
        self._context.search_strategy.notify_runner_results(proposals, results)
        return results


def _design_spaces(schedule: Schedule, function: tirx.PrimFunc, core: Core) -> list[Schedule]:
    spaces = []
    for form in forms(function, core):
        space = schedule.copy()
        form(space, sampled(space, at_default=False))
        spaces.append(space)
    return spaces


def sampled(schedule: Schedule, *, at_default: bool) -> Choose:
    """Let a form's free numbers be random variables of a schedule, alike likely.

    Parameters
    ----------
    schedule : Schedule
        What the form is applied to.
    at_default : bool
        Whether they have the form's default values, or ones drawn by the schedule.
    """

    def choose(options: Sequence[int], default: int) -> Any:
        decision = options.index(default) if at_default else None
        weights = [1.0 / len(options)] * len(options)
        return schedule.sample_categorical(list(options), weights, decision)

    return choose


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("shuffledeploy.compiler.tuning.metaschedule")
    logger.setLevel(logging.ERROR)
    return logger
