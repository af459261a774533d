"""Command: the paper's ablations in small, on Fashion-MNIST."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.model.errors import UsageError, command, program_name


@command
def main(argv: list[str] | None = None) -> int:
    """Train what has not been trained, and print the table."""
    arguments = parser().parse_args(argv)
    from shuffledeploy.model.ablation_networks import ABLATIONS
    from shuffledeploy.model.ablation_runs import (
        append_run,
        missing_trainings,
        run_training,
    )
    from shuffledeploy.model.fashion_data import fetch, read_split

    names = arguments.networks or [one.name for one in ABLATIONS]
    unknown = set(names) - {one.name for one in ABLATIONS}
    if unknown:
        raise UsageError(f"no ablation is named {', '.join(sorted(unknown))}")
    chosen = [one for one in ABLATIONS if one.name in names]
    missing = missing_trainings(
        chosen, arguments.seeds, arguments.epochs, arguments.images, arguments.runs
    )
    folder = fetch()
    split, test = read_split("train", folder), read_split("test", folder)
    for one, training in missing:
        run = run_training(one, training, split, test)
        append_run(arguments.runs, run)
        print(run, flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    described = argparse.ArgumentParser(prog=program_name("ablations.py"), description=__doc__)
    add = described.add_argument
    add("--networks", nargs="+", metavar="NAME")
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, default=2)
    add("--images", type=int, default=60_000)
    add("--runs", type=Path, default=Path(__file__).parent / "ablation_runs.csv")
    return described


if __name__ == "__main__":
    sys.exit(main(None))
