"""Random schedules from MetaSchedule's stock design space for CPUs, in place of our own forms.

They are what the tuner never proposes: tilings that spill, scalar loops, vectors across strides,
sums that go through memory. A proof that a score tells good from bad needs the bad.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import meta_schedule as ms
from tvm_ffi import structural_hash

# Of one core alone: TVM's parallel loops would only add the launch of one task.
NO_PARALLEL_LOOPS = -1
BATCH = 16
# As stock for llvm: `ScheduleRule.create("llvm")`.
MOST_VECTOR_EXTENT = 64
UNROLL_STEPS = (0, 16, 64, 512)


def stock_schedules(
    function: tirx.PrimFunc, target: tvm.target.Target, seed: int
) -> Iterator[tirx.PrimFunc]:
    """Draw scheduled kernels at random, each another, until the space gives no new ones.

    Parameters
    ----------
    function : tirx.PrimFunc
        The kernel, unscheduled.
    target : tvm.target.Target
        With ``num-cores``.
    seed : int
        The same seed gives the same schedules.
    """
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    context = ms.TuneContext(
        module, target=target,
        space_generator=ms.space_generator.PostOrderApply(
            sch_rules=_rules(), postprocs="llvm", mutator_probs="llvm"
        ),
        search_strategy=ms.search_strategy.ReplayTrace(),
        task_name="main", rand_state=seed, num_threads=1,
    )  # fmt: skip
    spaces = context.generate_design_space()
    context.pre_tuning(1 << 20, BATCH, spaces, ms.database.MemoryDatabase(), None)
    seen: set[int] = set()
    while candidates := context.generate_measure_candidates():
        known = len(seen)
        for candidate in candidates:
            identity = structural_hash(candidate.sch.mod)
            if identity not in seen:
                seen.add(identity)
                yield candidate.sch.mod["main"]
        if len(seen) == known:
            return
        results: list[Any] = [ms.runner.RunnerResult([1.0], None) for _ in candidates]
        context.search_strategy.notify_runner_results(candidates, results)


def _rules() -> list[Any]:
    rules = ms.schedule_rule.ScheduleRule.create("llvm")
    unrolling = ms.schedule_rule.ParallelizeVectorizeUnroll
    return [
        unrolling(NO_PARALLEL_LOOPS, MOST_VECTOR_EXTENT, list(UNROLL_STEPS), True)
        if isinstance(rule, unrolling)
        else rule
        for rule in rules
    ]
