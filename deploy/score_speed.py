"""How long the estimate of one candidate takes: on one core, of a network's kernels.

Of each kernel three candidates are built for the core: the first that a search proposes. Each is
scored alone, in one process at a time pinned to one core, with no costs remembered, and then all
once more with those of the first time. The median of each is said.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shuffledeploy.compiler.cores import DEFAULT_CORE
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.compiler.tuning.score import DetailedScore, KernelObject
from shuffledeploy.compiler.tuning.search.candidates import Workers, build_candidates
from shuffledeploy.compiler.tuning.search.evolution import CostModel, TaskSearch
from shuffledeploy.compiler.tuning.search.tasks import find_tasks
from shuffledeploy.compiler.zoo import trace_network
from shuffledeploy.deploy.board.guests import guest_of
from shuffledeploy.deploy.scoring.scores import EstimatedCycles
from shuffledeploy.model.command_output import CONSOLE, require_writable, write_json
from shuffledeploy.model.errors import Failure, command, program_name
from shuffledeploy.model.scratch import scratch_folder

CANDIDATES = 3
NETWORK = "shufflenet-g3-x1"


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog=program_name("score_speed.py"), description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--core", default=DEFAULT_CORE, help=f"default: {DEFAULT_CORE}")
    parser.add_argument("--model", default=NETWORK, help=f"of the zoo; default: {NETWORK}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args(argv)
    require_writable(options.json)
    guest, target = guest_of(options.core), find_target(options.core)
    with scratch_folder("score-speed-") as folder, CONSOLE.status("building"):
        kernels = _candidates(options.model, target, folder)
        score = EstimatedCycles(guest, target.cpu, 1, remembered_in=folder / "costs")
        seconds = {name: _seconds(kernels, score) for name in ("new", "remembered")}
    document = {
        "kind": "measured", "model": options.model, "core": options.core,
        "candidates": len(kernels), "seconds_a_candidate": seconds,
    }  # fmt: skip
    for name, figures in seconds.items():
        print(f"{name:10} {figures['median']:.2f} s a candidate (p90 {figures['p90']:.2f})")
    print(f"measured on this machine, one core: {len(kernels)} candidates of {options.model}")
    if options.json is not None:
        write_json(options.json, document)
    return 0


def _candidates(model: str, target: CompileTarget, folder: Path) -> list[KernelObject]:
    found: list[KernelObject | str] = []
    with Workers() as workers:
        for task in find_tasks(lower(trace_network(model), target), target):
            search = TaskSearch(
                task.function, target.core, target.tvm_target, CostModel(0), 0,
                batch=CANDIDATES,
            )  # fmt: skip
            functions = [candidate.schedule.mod["main"] for candidate in search.propose()]
            found += build_candidates(functions[:CANDIDATES], target, folder, workers)
    return [kernel for kernel in found if isinstance(kernel, KernelObject)]


def _seconds(kernels: Sequence[KernelObject], score: EstimatedCycles) -> dict[str, float]:
    """Time the scoring of each, alone, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    seconds = []
    for kernel in kernels:
        began = time.monotonic()
        (found,) = score([kernel])
        seconds.append(time.monotonic() - began)
        if not isinstance(found, DetailedScore):
            raise Failure(f"a candidate has no estimate: {found}")
    median, p90 = np.percentile(seconds, [50, 90])
    return {"median": float(median), "p90": float(p90)}


if __name__ == "__main__":
    sys.exit(main(None))
