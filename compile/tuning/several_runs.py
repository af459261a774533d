"""Several networks for several targets by one command: each a run of its own, one after another."""

from __future__ import annotations

import argparse

from shuffledeploy.model.errors import UsageError

#: In place of names of networks: all of the zoo.
EVERY_NETWORK = "all"
# What belongs to one bundle or one core, by the names of its options.
_OF_ONE_RUN = ("output", "dump_ir", "plot", "beside", "board")


def single_runs(options: argparse.Namespace) -> list[argparse.Namespace]:
    """Give the options of each run: one target and at most one network of the zoo.

    Runs of one target follow each other, so that a kernel that two networks share is searched once.

    Raises
    ------
    UsageError
        If an option belongs to one run, and there are several.
    """
    models, targets = options.model or [None], options.target or [None]
    if EVERY_NETWORK in models:
        # Its import brings PyTorch.
        from shuffledeploy.model.registry import names

        models = names()
    runs = [
        argparse.Namespace(**{**vars(options), "target": target, "model": model})
        for target in dict.fromkeys(targets)
        for model in dict.fromkeys(models)
    ]
    given = [name for name in _OF_ONE_RUN if getattr(options, name)]
    given += ["standalone NAME"] if options.standalone else []
    if len(runs) > 1 and given:
        option = f"--{given[0].replace('_', '-')}"
        raise UsageError(
            f"{option} goes with one network and one target: --model and --target ask for"
            f" {len(runs)} bundles"
        )
    return runs
