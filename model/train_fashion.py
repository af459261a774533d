"""Command: train ``shufflenet-fashion`` and write its checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shuffledeploy.model.errors import UsageError, command
from shuffledeploy.model.fashion import TrainingStep, accuracy, save_checkpoint, train
from shuffledeploy.model.fashion_data import Split, fetch, read_split
from shuffledeploy.model.registry import FASHION_CHECKPOINT


def _check(arguments: argparse.Namespace) -> None:
    """Refuse now what would otherwise fail after minutes of training."""
    output: Path = arguments.output
    if output.is_dir():
        raise UsageError(f"{output} is a directory: name a file for the checkpoint")
    if not os.access(output.parent, os.W_OK):
        raise UsageError(f"{output.parent} is no folder that can be written to")
    if not 0 <= arguments.seed < 2**63:
        raise UsageError(f"a seed lies in 0 to 2^63 - 1, not {arguments.seed}")
    if arguments.epochs < 1 or (arguments.images is not None and arguments.images < 1):
        raise UsageError("epochs and images start at 1")


@command
def main(argv: list[str] | None = None) -> int:
    """Fetch, train, measure, write."""
    parser = argparse.ArgumentParser(
        description="Train ShuffleNet 0.25x g3 on Fashion-MNIST (28x28, 10 classes) and write "
        "its weights. The committed checkpoint is what the defaults give: some 15 minutes of "
        "one core.",
        epilog="example: python model/train_fashion.py --epochs 1 --output quick.pt",
    )
    parser.add_argument("--epochs", type=int, default=10, help="passes over the images (10)")
    parser.add_argument("--seed", type=int, default=0, help="weights, order and flips (0)")
    parser.add_argument("--images", type=int, help="train on only so many of the 60,000")
    parser.add_argument(
        "--output", type=Path, default=FASHION_CHECKPOINT, help="checkpoint (the committed one)"
    )
    arguments = parser.parse_args(argv)
    _check(arguments)
    folder = fetch()
    split, test = read_split("train", folder), read_split("test", folder)
    if arguments.images is not None:
        split = Split(split.images[: arguments.images], split.labels[: arguments.images])
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns) as bar:
        task = bar.add_task("training")

        def show(step: TrainingStep) -> None:
            text = f"training, loss {step.loss:.3f}"
            bar.update(task, completed=step.done, total=step.total, description=text)

        module = train(split, epochs=arguments.epochs, seed=arguments.seed, progress=show)
    save_checkpoint(module, arguments.output)
    print(f"measured: {accuracy(module, test):.2%} top-1 of {len(test.labels):,} test images")
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
