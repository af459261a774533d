"""Prove the estimate of cycles on this machine, which can be timed.

Method. From the seed: networks of the zoo are drawn, and of their kernels (at most 6 million
multiply-adds) three of each kind: grouped pointwise, depthwise, first convolution, classifier. Of
each kernel 64 candidates are drawn, no two of the same code, good and bad: up to 32 from the
tuner's own search, steered by times roughly taken here, and the others at random from
MetaSchedule's stock design space for CPUs (its tilings, vectors and unrolling of the same kernel,
without parallel loops). The estimate has no say in either. All are then timed on this machine: in
one process pinned to one core, in turns, 21 rounds of at least half a millisecond each; a
candidate's time is its median over the rounds, each against the round's mean. The same objects are
run in the emulator for this machine's architecture, with the same plugin, and estimated by the same
code as an ARM core's, with LLVM's model of this machine's core. An x86-64 machine's code is
compiled without AVX-512, which the emulator does not know; on an aarch64 machine it is the ARM
estimate itself that is proved.

Statistics. `spearman` and `kendall` compare estimate and time over all candidates of a kernel;
pooled, each kernel's times and estimates are divided by their medians and the candidates of all
kernels compared together (`spearman_by_kernel` is the mean of the kernels' own). Regret: of a
subset of 40 candidates, drawn 2000 times, how many percent the best of the one or three with the
least estimate is slower than the fastest; the mean over subsets, pooled over kernels alike.
`core` is the estimate without what moving lines between caches costs, `instructions` the plain
count; `noise` the times of every second round, which no estimate can be expected to beat by much.
`chosen_regret_mean` is the regret of what the tuner compiles: of candidates whose estimates are
within 5 % of the best the one of the fewest instructions.
`pooled_own_search` is the estimate among the candidates of the tuner's own search alone, which
differ by less.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from shuffledeploy.compiler.targets import HOST, CompileTarget, find_target
from shuffledeploy.compiler.tuning.proof.rank_statistics import (
    Ranking,
    choice_regret,
    rank_kernel,
    rank_pooled,
)
from shuffledeploy.compiler.tuning.proof.validation import Sample, draw_kernels, sample_kernels
from shuffledeploy.compiler.tuning.records.ties import TIE
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.deploy.board.guests import guest_like_host
from shuffledeploy.deploy.report.validation_chart import draw_scatter
from shuffledeploy.deploy.scoring.scores import EstimatedCycles
from shuffledeploy.model.command_output import require_writable, shares, write_json
from shuffledeploy.model.errors import command, program_name
from shuffledeploy.model.plain_console import plain_console

SCORES = ("estimate", "core", "iterations", "throughput", "instructions", "noise")
LEAST_CANDIDATES = 60
# The bar: rank correlation at least, top-1 and top-3 regret at most.
BAR = Ranking(0.95, 0.0, 7.0, 2.0)


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; the status is 1 where the bar does not hold."""
    options = _parser().parse_args(argv)
    require_writable(options.json)
    require_writable(options.plot)
    target = host_target()
    score = EstimatedCycles(guest_like_host(), target.cpu, Workers().count)
    with shares("drawing kernels") as say:
        drawn = draw_kernels(options.seed, target, lambda what: say(what, 0.0))
        samples = sample_kernels(drawn, target, score, options.seed, say)
    document = summarise(samples, options.seed)
    document |= {"source": score.source, "target": target.name}
    _print(document)
    if options.json is not None:
        write_json(options.json, document)
    if options.plot is not None:
        draw_scatter(samples, document, options.plot)
    return 0 if document["passed"] else 1


def host_target() -> CompileTarget:
    """Give this machine's core, without what the emulator does not know."""
    host = find_target(HOST)
    if platform.machine() != "x86_64" or "avx512f" not in host.features:
        return host
    return find_target(
        f'{{"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "{host.cpu}",'
        ' "mattr": ["-avx512f"]}'
    )


def summarise(samples: Sequence[Sample], seed: int) -> dict[str, Any]:
    """Work out the statistics of every score, by kernel and pooled."""
    times = {sample.kernel: sample.times for sample in samples}
    kernels: list[dict[str, Any]] = []
    pooled: dict[str, dict[str, float]] = {}
    for sample in samples:
        rankings = {
            name: dataclasses.asdict(rank_kernel(sample.times, _values(sample, name), seed))
            for name in SCORES
        }
        kernels.append({
            "kernel": sample.kernel, "kind": sample.kind, "candidates": len(sample.times),
            "of_own_search": int(np.count_nonzero(~sample.is_stock)),
            "slowest_over_fastest": float(sample.times.max() / sample.times.min()),
            "disagreeing": int(sample.scores["disagree"].sum()), **rankings,
        })  # fmt: skip
    for name in SCORES:
        values = {sample.kernel: _values(sample, name) for sample in samples}
        by_kernel = float(np.mean([kernel[name]["spearman"] for kernel in kernels]))
        ranking = rank_pooled(times, values, seed)
        pooled[name] = {**dataclasses.asdict(ranking), "spearman_by_kernel": by_kernel}
    own = {sample.kernel: ~sample.is_stock for sample in samples}
    estimates = {sample.kernel: sample.scores["estimate"] for sample in samples}
    own_search = rank_pooled(
        {name: times[name][chosen] for name, chosen in own.items()},
        {name: estimates[name][chosen] for name, chosen in own.items()}, seed,
    )  # fmt: skip
    chosen = [
        choice_regret(s.times, s.scores["estimate"], s.scores["instructions"], seed)
        for s in samples
    ]
    best = Ranking(**{k: v for k, v in pooled["estimate"].items() if k != "spearman_by_kernel"})
    return {
        "kind": "estimated, against measured", "seed": seed, "kernels": kernels, "pooled": pooled,
        "pooled_own_search": dataclasses.asdict(own_search),
        "chosen_regret_mean": float(np.mean(chosen)),
        "bar": dataclasses.asdict(BAR), "passed": holds(best),
    }  # fmt: skip


def holds(ranking: Ranking) -> bool:
    """Whether a pooled ranking is as good as the bar asks."""
    return (
        ranking.spearman >= BAR.spearman
        and ranking.top1_regret_mean <= BAR.top1_regret_mean
        and ranking.top3_regret_mean <= BAR.top3_regret_mean
    )


def _values(sample: Sample, name: str) -> Any:
    if name == "core":
        return (sample.scores["iterations"] + sample.scores["throughput"]) / 2
    return sample.noise if name == "noise" else sample.scores[name]


def _print(document: dict[str, Any]) -> None:
    table = Table(
        title=f"{document['target']}, seed {document['seed']}: {document['source']}",
        title_justify="left",
    )
    for heading in ("kernel", "score", "spearman", "kendall", "top1 %", "top3 %"):
        left = heading in ("kernel", "score")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    rows: list[tuple[str, Any, Sequence[str]]] = [
        (kernel["kernel"], kernel, ("estimate", "instructions")) for kernel in document["kernels"]
    ]
    own_search = {"estimate": document["pooled_own_search"]}
    rows += [("pooled", document["pooled"], SCORES),
             ("pooled, own search alone", own_search, ("estimate",))]  # fmt: skip
    for title, figures, names in rows:
        for name in names:
            found = figures[name]
            table.add_row(
                title if name == names[0] else "", name, f"{found['spearman']:.3f}",
                f"{found['kendall']:.3f}", f"{found['top1_regret_mean']:.1f}",
                f"{found['top3_regret_mean']:.1f}",
            )  # fmt: skip
    plain_console().print(table)
    print(
        f"what is compiled (of estimates within {TIE:.0%} the fewest instructions): mean regret "
        f"{document['chosen_regret_mean']:.1f} %"
    )
    bar = document["bar"]
    print("top-1 %, top-3 %: mean regret of the best one or three by the score")
    few = [k["kernel"] for k in document["kernels"] if k["candidates"] < LEAST_CANDIDATES]
    if few:
        print(f"fewer than {LEAST_CANDIDATES} candidates were found of: {', '.join(few)}")
    print(
        f"the bar (spearman {bar['spearman']}, {bar['top1_regret_mean']:g} %,"
        f" {bar['top3_regret_mean']:g} %) {'holds' if document['passed'] else 'does not hold'}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("validate_score.py"), description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the statistics as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw estimate against time")
    return parser


if __name__ == "__main__":
    sys.exit(main(None))
