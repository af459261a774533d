"""Command: the paper's ablations in small, on Fashion-MNIST: accuracy beside estimated latency."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from shuffledeploy.model.ablation_networks import ABLATIONS, Ablation
from shuffledeploy.model.ablation_runs import (
    COMMITTED_RUNS,
    accuracies,
    append_run,
    board_milliseconds,
    missing_trainings,
    read_runs,
    run_training,
)
from shuffledeploy.model.command_output import require_creatable, steps
from shuffledeploy.model.errors import UsageError, command
from shuffledeploy.model.fashion_data import fetch, read_split


@command
def main(argv: list[str] | None = None) -> int:
    """Train what has not been trained, and print the table."""
    options = _parse(argv)
    missing = missing_trainings(
        ABLATIONS, options.seeds, options.epochs, options.images, options.runs
    )
    if missing:
        folder = fetch()
        split, test = read_split("train", folder), read_split("test", folder)
        with steps("training", len(missing)) as tell:
            for one, training in missing:
                tell(f"{one.name}, seed {training.seed}")
                append_run(options.runs, run_training(one, training, split, test))
                tell(None)
    runs = list(read_runs(options.runs).values())
    costs = board_milliseconds()
    shares = {
        one.name: accuracies(runs, one.name, options.epochs, options.images) for one in ABLATIONS
    }
    print("| built of | groups | shuffles | accuracy, measured | spread | ms, estimated |")
    print("|---|---|---|---|---|---|")
    for one in ABLATIONS:
        print(_row(one, shares[one.name], costs))
    if options.chart is not None:
        from shuffledeploy.model.ablation_chart import draw_ablations

        draw_ablations(options.chart, shares, costs)
    return 0


def _row(one: Ablation, found: list[float], costs: dict[str, float]) -> str:
    """Write a network's row: mean and standard deviation of its seeds, in percent."""
    percent = [100 * share for share in found]
    spread = f"{statistics.stdev(percent):.2f}" if len(percent) > 1 else "-"
    mean = f"{statistics.mean(percent):.2f} %" if percent else "-"
    shuffles = "yes" if one.shuffles else "no"
    cost = costs.get(one.name)
    shown = "-" if cost is None else f"{cost:.3g}"
    return f"| {one.unit} | {one.groups} | {shuffles} | {mean} | {spread} | {shown} |"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train small networks on Fashion-MNIST that differ in groups, shuffles or"
        " units at equal complexity, and print their accuracy beside the milliseconds that were"
        " estimated of each on a Raspberry Pi 4. Trainings that are in the table of runs are not"
        " run again: the committed ones took 19 minutes of one core.",
        epilog="example: python model/ablations.py --seeds 5",
    )
    add = parser.add_argument
    add("--seeds", type=int, default=3, help="trainings of each network (3)")
    add("--epochs", type=int, default=2, help="passes over the images (2)")
    add("--images", type=int, default=30_000, help="of the 60,000 to learn from (30,000)")
    add("--runs", type=Path, default=COMMITTED_RUNS, metavar="FILE.csv",
        help="table of runs, read and appended to (the committed one)")  # fmt: skip
    add("--chart", type=Path, metavar="FILE.png", help="draw the table there")
    options = parser.parse_args(argv)
    require_creatable(options.chart)
    if min(options.seeds, options.epochs) < 1 or not 128 <= options.images <= 60_000:
        raise UsageError("seeds and epochs start at 1, and images are 128 to 60,000")
    return options


if __name__ == "__main__":
    sys.exit(main(None))
