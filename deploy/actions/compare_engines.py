"""Engines side by side on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from shuffledeploy.deploy.benchmark.benchmark_plan import SubjectGroup, plan
from shuffledeploy.deploy.benchmark.benchmark_report import print_document
from shuffledeploy.deploy.benchmark.engines import OURS, USUAL_ENGINES, find_engine
from shuffledeploy.deploy.benchmark.run_benchmark import run_groups
from shuffledeploy.deploy.benchmark.settings import Settings
from shuffledeploy.deploy.runtime.defaults import BENCH_RESULTS
from shuffledeploy.model.command_output import require_writable
from shuffledeploy.model.errors import UsageError


def compare_engines(options: argparse.Namespace) -> int:
    """Do what the command was asked for; return its exit status."""
    groups, settings, results, chart = _checked(options)
    document = run_groups(groups, settings, results, fresh=options.fresh)
    print_document(document)
    if document["rows"]:
        from shuffledeploy.deploy.benchmark.benchmark_chart import draw_chart

        draw_chart(chart, document)
        print(f"{results}, {chart}")
    return 1 if document["excluded"] else 0


def _checked(
    options: argparse.Namespace,
) -> tuple[Sequence[SubjectGroup], Settings, Path, Path]:
    """Refuse before any work what cannot be done."""
    chosen = [find_engine(name) for name in dict.fromkeys(options.engine)] or list(USUAL_ENGINES)
    absent = [engine.package for engine in chosen if engine.version is None]
    if absent:
        raise UsageError(
            f"not installed: {', '.join(absent)}; `make bench` installs them, --engine {OURS}"
            " does without"
        )
    groups = plan(
        [engine.name for engine in chosen],
        options.model,
        options.resolution,
        options.threads,
        options.quick,
    )
    results = options.json
    if results == BENCH_RESULTS:
        results.parent.mkdir(exist_ok=True)
    chart = options.chart or results.with_suffix(".png")
    require_writable(results)
    require_writable(chart)
    return groups, Settings(rounds=options.rounds), results, chart
