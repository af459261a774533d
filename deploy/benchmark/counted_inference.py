"""One inference of any engine on an emulated core: answers checked, instructions counted.

Every engine, ours too, runs in a process of its own under QEMU; see `counted_process`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.deploy.benchmark.answers import Question, error_of
from shuffledeploy.deploy.benchmark.counted_process import BoardProgram, count_process
from shuffledeploy.deploy.benchmark.engines import Engine
from shuffledeploy.deploy.estimate.board_cycles import BoardCycles, cycles_on
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.estimate.cycle_model import CycleModel
from shuffledeploy.model.scratch import scratch_folder


@dataclass(frozen=True)
class CountedInference:
    """What one warmed inference executed.

    Attributes
    ----------
    instructions : int
        Of the whole process. Counted.
    cycles : float
        Of the core, caches hit and branches predicted. Estimated.
    max_abs_error : float
        Of the answers, against PyTorch's.
    on_board : BoardCycles or None
        With what memory adds on a board, where one was named. Estimated.
    """

    instructions: int
    cycles: float
    max_abs_error: float
    on_board: BoardCycles | None = None


def count_inference(
    engine: Engine, files: Mapping[str, str], asked: Sequence[Question], core: str,
    model: CycleModel, packages: Sequence[Path] = (), board: Board | None = None,
    *, precision: str = FLOAT,
) -> CountedInference:  # fmt: skip
    """Run an engine on an emulated core.

    Parameters
    ----------
    engine : Engine
        What to run.
    files : mapping
        What it loads, by role.
    asked : sequence of Question
        Images and PyTorch's answers.
    core : str
        The core to emulate.
    model : CycleModel
        Of that core.
    packages : sequence of Path
        Where the board finds the engine's package.
    board : Board, optional
        Add what memory costs there; it has that core.
    precision : str
        What the engine computes in: tells how far its answers may be off.

    Raises
    ------
    WrongAnswer
        It does not answer as PyTorch does: nothing is counted then.
    Failure
        It does not run.
    """
    images = [question.image for question in asked]
    with scratch_folder("shuffledeploy-counted-") as folder:
        program = BoardProgram(engine.label, engine.module, files, tuple(packages))
        caches = board.caches if board else None
        counted = count_process(program, images, core, model, folder, caches)
        error = _largest_error(folder, asked, precision)
    on_board = cycles_on(board, counted.pieces) if board else None
    return CountedInference(counted.instructions, counted.cycles, error, on_board)


def _largest_error(folder: Path, asked: Sequence[Question], precision: str = FLOAT) -> float:
    """Check all answers, that of the counted run too."""
    answers = [np.load(folder / f"answer_{place}.npy") for place in range(len(asked))]
    pairs = [*zip(answers, asked, strict=True), (np.load(folder / "counted.npy"), asked[0])]
    return max(error_of(answer, question, precision) for answer, question in pairs)
