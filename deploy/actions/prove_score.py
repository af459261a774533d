"""Does the estimate rank schedules as the clock does? Candidates scored, timed, compared."""

from __future__ import annotations

import argparse
import dataclasses
import platform
from collections.abc import Sequence
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
from shuffledeploy.deploy.estimate.host_caches import as_on_this_machine
from shuffledeploy.deploy.estimate.reference_boards import KernelMemory, kernel_memory
from shuffledeploy.deploy.presentation.validation_chart import draw_scatter
from shuffledeploy.deploy.scoring.scores import EstimatedCycles
from shuffledeploy.model.command_output import shares, write_json
from shuffledeploy.model.plain_console import plain_console

SCORES = ("estimate", "core", "iterations", "throughput", "instructions", "noise")
LEAST_CANDIDATES = 60
# The bar: rank correlation at least, top-1 and top-3 regret at most.
BAR = Ranking(0.95, 0.0, 7.0, 2.0)


def prove_score(options: argparse.Namespace) -> int:
    """Do what the command was asked for; return its exit status."""
    target = host_target()
    memory = memory_of_host(target.cpu)
    # The clock times one call after the other: so is the one that is estimated.
    score = EstimatedCycles(guest_like_host(), target.cpu, Workers().count, memory, repeated=True)
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


def memory_of_host(core: str) -> KernelMemory | None:
    """Give the caches of this machine, whose core LLVM calls so; None where they are not known."""
    known = kernel_memory(core)
    return known and known._replace(caches=as_on_this_machine(known.caches))


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
