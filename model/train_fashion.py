"""Command: train ``shufflenet-fashion`` and write its checkpoint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.errors import UsageError, command
from model.fashion import Step, accuracy, save_checkpoint, train
from model.fashion_data import Split, fetch, read_split
from model.registry import FASHION_CHECKPOINT


@command
def main(argv: list[str] | None = None) -> int:
    """Fetch, train, measure, write."""
    parser = argparse.ArgumentParser(
        description="Train ShuffleNet 0.25x g3 on Fashion-MNIST (28x28, 10 classes) and write "
        "its weights. The committed checkpoint is what the defaults give: some 15 minutes of "
        "one core.",
        epilog="example: python model/train_fashion.py --epochs 1 --output /tmp/quick.pt",
    )
    parser.add_argument("--epochs", type=int, default=10, help="passes over the images (10)")
    parser.add_argument("--seed", type=int, default=0, help="weights, order and flips (0)")
    parser.add_argument("--images", type=int, help="train on only so many of the 60,000")
    parser.add_argument(
        "--output", type=Path, default=FASHION_CHECKPOINT, help="checkpoint (the committed one)"
    )
    arguments = parser.parse_args(argv)
    if arguments.output.is_dir():
        raise UsageError(f"{arguments.output} is a directory: name a file for the checkpoint")
    folder = fetch()
    split, test = read_split("train", folder), read_split("test", folder)
    if arguments.images is not None:
        split = Split(split.images[: arguments.images], split.labels[: arguments.images])
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns) as bar:
        task = bar.add_task("training")

        def show(step: Step) -> None:
            text = f"training, loss {step.loss:.3f}"
            bar.update(task, completed=step.done, total=step.total, description=text)

        module = train(split, epochs=arguments.epochs, seed=arguments.seed, progress=show)
    save_checkpoint(module, arguments.output)
    print(f"measured: {accuracy(module, test):.2%} top-1 of {len(test.labels):,} test images")
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
