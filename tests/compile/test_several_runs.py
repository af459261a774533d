"""What a command line that names several networks and targets stands for."""

from __future__ import annotations

import argparse

from shuffledeploy.compiler.tuning.several_runs import single_runs
from shuffledeploy.model.registry import names


def test_all_is_every_network_of_the_zoo() -> None:
    single = dict.fromkeys(("output", "dump_ir", "plot", "beside", "board"))
    asked = {"model": ["all", "alexnet"], "target": ["cortex-a72", "arm"], "standalone": None}
    runs = single_runs(argparse.Namespace(**single, **asked))
    assert [run.model for run in runs] == [*names(), *names()]
    assert [run.target for run in runs[:: len(names())]] == ["cortex-a72", "arm"]
