"""What each engine must answer before it is timed: PyTorch's logits, run after run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.bundle.tolerances import TOLERANCES, allowed_error, error_unit
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.deploy.benchmark.worker_process import Asked
from shuffledeploy.model.command_output import replaced
from shuffledeploy.model.errors import Failure

#: Largest absolute error of a logit of order one. Winograd in float32 comes to some 1e-5 on these
#: networks; float16 or bfloat16 anywhere, which must not pass for float32, to 1e-3 and more.
TOLERANCE = 2e-4

#: Runs before each answer is read: an engine that overwrites its input answers the first rightly.
RUNS = 2
#: Images: the bundle's stored input, and its first seeded one.
IMAGES = 2


Array = np.ndarray[Any, Any]


class WrongAnswer(Failure):
    """An engine does not answer as PyTorch does."""


@dataclass(frozen=True)
class Question:
    """An image, as a file that workers read, and PyTorch's answer to it.

    Attributes
    ----------
    image : Path
        The file.
    logits : Array
        The answer.
    order : float
        What `TOLERANCE` is multiplied by where logits are not of order one.
    """

    image: Path
    logits: Any
    order: float = 1.0


def questions(bundle: Bundle, folder: Path, *, any_order: bool = False) -> list[Question]:
    """Write a bundle's images where workers can read them.

    Parameters
    ----------
    bundle : Bundle
        It carries the inputs and PyTorch's answers.
    folder : Path
        Where the images go.
    any_order : bool
        Whether logits may be of another order than one: errors are then told in parts of their
        standard deviation, where that is larger.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    pairs = zip(bundle.reference_inputs(), bundle.reference_outputs(), strict=True)
    for case, ((image,), (logits,)) in enumerate(list(pairs)[:IMAGES]):
        path = folder / f"image_{case}.npy"
        with replaced(path) as beside, beside.open("wb") as stream:
            np.save(stream, image)
        order = max(1.0, float(np.std(logits))) if any_order else 1.0
        found.append(Question(path, logits, order))
    return found


def check(worker: Asked, asked: Sequence[Question]) -> float:
    """Ask a worker each question, the first one again at the end, so that it is set for timing.

    Returns
    -------
    float
        The largest absolute error.

    Raises
    ------
    WrongAnswer
        It is beyond `TOLERANCE`, not a number, or of another shape.
    Failure
        The engine failed.
    """
    largest = 0.0
    for question in (*asked, asked[0]):
        answer = worker.ask("answer", image=str(question.image), times=RUNS)
        logits = np.asarray(answer["logits"], np.float32).reshape(answer["shape"])
        largest = max(largest, error_of(logits, question))
    return largest


def error_of(logits: Array, question: Question, precision: str = FLOAT) -> float:
    """Give the largest absolute error of an answer.

    Raises
    ------
    WrongAnswer
        It is beyond `TOLERANCE`, or in half and int8 beyond what our own bundles are allowed, not
        a number, or of another shape.
    """
    wanted = np.asarray(question.logits)
    if logits.size != wanted.size:
        raise WrongAnswer(f"it answers with shape {logits.shape}, not {wanted.shape}")
    error = float(np.max(np.abs(logits.reshape(wanted.shape) - wanted)))
    allowed = TOLERANCE * question.order
    if precision != FLOAT:
        allowed = allowed_error(error_unit(wanted, precision), TOLERANCES[precision], precision)
    if not error <= allowed:  # also where it is not a number
        raise WrongAnswer(f"its answer is off by {error:.2g} (tolerance {allowed:.0e})")
    return error
