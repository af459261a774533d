"""One line a precision: what it takes of a board, and what it costs in accuracy."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from rich.table import Table

from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.deploy.actions.fashion_check import (
    Accuracy,
    fashion_bundle,
    first_images,
    measure_accuracy,
)
from shuffledeploy.deploy.estimate.board_cycles import BoardCycles
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.estimate.cycle_model import CycleModel
from shuffledeploy.deploy.runtime.comparison import cached_bundle
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.latency import count_library
from shuffledeploy.deploy.runtime.network_estimate import estimate_library, on_board_json
from shuffledeploy.deploy.runtime.parity import Parity, check_parity
from shuffledeploy.model.command_output import steps, write_json
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.fashion_data import FASHION, Split, fetch, read_split
from shuffledeploy.model.plain_console import plain_console

# Steps of each precision that progress is told of: two compiled, one counted, one asked.
_STEPS = 4


@dataclasses.dataclass(frozen=True)
class PrecisionRow:
    """What one precision comes to.

    Attributes
    ----------
    precision : str
        What the network computes in.
    library_bytes : int
        Of the library's file, weights included: measured.
    instructions : int
        Of one inference in the library: counted.
    on_board : BoardCycles
        What it takes on the board: estimated.
    parity : Parity
        Against PyTorch, on the emulated core.
    accuracy : Accuracy or None
        Of the trained network in that precision, there: measured; None without its images.
    """

    precision: str
    library_bytes: int
    instructions: int
    on_board: BoardCycles
    parity: Parity
    accuracy: Accuracy | None

    def to_json(self) -> dict[str, Any]:
        """Give the row for a JSON file."""
        accuracy = self.accuracy and dataclasses.asdict(self.accuracy)
        figures = {"library_bytes": self.library_bytes, "instructions": self.instructions}
        return {
            "precision": self.precision, **figures, "parity": self.parity.to_json(),
            "accuracy": accuracy, **on_board_json(self.on_board),
        }  # fmt: skip


def compare_precisions(options: argparse.Namespace, board: Board) -> int:
    """Do what the command was asked for; return its exit status."""
    targets = targets_of(board)
    images, missing = None, ""
    try:
        images = first_images(read_split("test", fetch()), options.images)
    except Failure as error:
        missing = f"no accuracy: {error}"
    with steps("starting", _STEPS * len(targets)) as tell:
        rows = [_row(options.model, target, board, images, tell) for target in targets]
    print_precisions(options.model, board, rows, missing)
    if options.json is not None:
        document = {"model": options.model, "board": board.name}
        write_json(options.json, document | {"rows": [row.to_json() for row in rows]})
    return 0 if all(row.parity.passed for row in rows) else 1


def targets_of(board: Board) -> list[CompileTarget]:
    """List a board's core in each precision that it computes in."""
    return find_target(board.core).in_each_precision


def _row(
    model: str,
    target: CompileTarget,
    board: Board,
    images: Split | None,
    tell: Callable[[str | None], None],
) -> PrecisionRow:
    device, what = f"emulated:{board.core}", f"{model} in {target.precision}"
    tell(f"{what}: compiling")
    bundle = cached_bundle(model, None, target, tell=tell)
    tell(None)
    tell(f"{what}: counting")
    with open_network(bundle, device) as network:
        parity = check_parity(network, bundle)
        counted = count_library(network, board.caches)
    on_board = estimate_library(
        counted, bundle, CycleModel(target.architecture, board.core), board.core, board
    ).on_board
    assert on_board is not None
    tell(None)
    accuracy = None
    if images is not None:
        tell(f"{FASHION} in {target.precision}: compiling")
        trained = fashion_bundle(target, tell)
        tell(None)
        tell(f"{FASHION} in {target.precision}: classifying images")
        with open_network(trained, device) as network:
            accuracy = measure_accuracy(network, images)
        tell(None)
    size = bundle.library.stat().st_size
    return PrecisionRow(target.precision, size, counted.total, on_board, parity, accuracy)


def print_precisions(model: str, board: Board, rows: list[PrecisionRow], missing: str) -> None:
    """Print one line a precision, readable at 80 columns, and what kinds the figures are."""
    console = plain_console()
    console.print(f"{model} on a {board.name} ({board.core}), by precision")
    table = Table(box=None)
    for heading in ("", "library, MB", "instructions, M", "ms", "accuracy", "differ", "parity"):
        table.add_column(heading, justify="left" if heading in ("", "parity") else "right")
    for row in rows:
        known = row.accuracy
        table.add_row(
            row.precision, f"{row.library_bytes / 1e6:.2f}", f"{row.instructions / 1e6:.1f}",
            f"{row.on_board.milliseconds:.3g}", "-" if known is None else f"{known.device:.1%}",
            "-" if known is None else f"{len(known.disagreements)} of {known.images}",
            "holds" if row.parity.passed else "fails",
        )  # fmt: skip
    console.print(table)
    console.print(
        "size measured; instructions counted in the library, emulated; milliseconds estimated;"
        f" accuracy measured, on Fashion-MNIST with {FASHION} on the emulated core, and the images"
        " that it names otherwise than PyTorch does"
    )
    if missing:
        console.print(missing)
