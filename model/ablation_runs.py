"""Trainings of the ablations: each is run once, and its accuracy kept in a table of runs."""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from shuffledeploy.model.ablation_networks import Ablation
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.fashion import TrainingStep, accuracy, train
from shuffledeploy.model.fashion_data import Split

#: What the committed runs are; ``model/README.md`` shows them.
COMMITTED_RUNS = Path(__file__).parent / "ablation_runs.csv"
#: What `deploy/compare.py --board raspberry-pi-4` estimated of the same networks.
COMMITTED_COSTS = Path(__file__).parent / "ablation_costs.json"


@dataclasses.dataclass(frozen=True)
class Training:
    """What makes one run what it is.

    Attributes
    ----------
    network : str
        Name in the registry.
    seed, epochs : int
        Of the training.
    images : int
        That it learned from.
    """

    network: str
    seed: int
    epochs: int
    images: int


@dataclasses.dataclass(frozen=True)
class Run:
    """A training and what came of it.

    Attributes
    ----------
    training : Training
        What was done.
    accuracy : float
        Share of the 10,000 test images that are classified right, after the last epoch.
    cpu_seconds : float
        Processor time that the training took.
    """

    training: Training
    accuracy: float
    cpu_seconds: float


_COLUMNS = ("network", "seed", "epochs", "images", "accuracy", "cpu_seconds")


def read_runs(path: Path) -> dict[Training, Run]:
    """Read a table of runs; none where there is no file.

    Raises
    ------
    UsageError
        The file is not such a table: the line is named.
    """
    if not path.exists():
        return {}
    runs = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != _COLUMNS:
                raise UsageError(f"{path} does not begin with {','.join(_COLUMNS)}")
            for row in rows:
                network, seed, epochs, images, share, seconds = row
                training = Training(network, int(seed), int(epochs), int(images))
                runs[training] = Run(training, float(share), float(seconds))
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is no table of runs: line {len(runs) + 2}: {error}") from None
    return runs


def append_run(path: Path, run: Run) -> None:
    """Add a run to a table, which is made where there is none.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    try:
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(_COLUMNS)
            figures = (f"{run.accuracy:.4f}", f"{run.cpu_seconds:.1f}")
            writer.writerow((*dataclasses.astuple(run.training), *figures))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None


def missing_trainings(
    networks: Iterable[Ablation], seeds: int, epochs: int, images: int, path: Path
) -> list[tuple[Ablation, Training]]:
    """List what a table of runs has not: all networks of the first seed before any of the next."""
    known, ablations = read_runs(path), list(networks)
    wanted = [
        (one, Training(one.name, seed, epochs, images))
        for seed in range(seeds)
        for one in ablations
    ]
    return [(one, training) for one, training in wanted if training not in known]


def run_training(
    ablation: Ablation,
    training: Training,
    split: Split,
    test: Split,
    progress: Callable[[TrainingStep], None] | None = None,
) -> Run:
    """Train one network on one thread, and test it.

    Parameters
    ----------
    ablation, training : Ablation, Training
        What to train, and how.
    split, test : Split
        Images to learn from, of which the first ``training.images`` are taken, and to test with.
    progress : Callable, optional
        Called after each batch.
    """
    torch.set_num_threads(1)
    chosen = Split(split.images[: training.images], split.labels[: training.images])
    began = time.process_time()
    module = train(
        chosen, epochs=training.epochs, seed=training.seed, progress=progress,
        construct=ablation.construct, learning_rate=ablation.learning_rate,
    )  # fmt: skip
    return Run(training, accuracy(module, test), time.process_time() - began)


def accuracies(runs: Iterable[Run], network: str, epochs: int, images: int) -> list[float]:
    """Give the accuracies of a network that was trained so, a seed each."""
    return [
        run.accuracy
        for run in runs
        if run.training == Training(network, run.training.seed, epochs, images)
    ]


def board_milliseconds() -> dict[str, float]:
    """Give the milliseconds of an inference that were estimated, by network."""
    document = json.loads(COMMITTED_COSTS.read_text(encoding="utf-8"))
    return {str(name): float(value) for name, value in document["networks"].items()}
