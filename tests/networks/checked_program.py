"""One program compiled for one target and compared with PyTorch, in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from package_networks import PackageNetwork
from telling_weights import telling

import shuffledeploy
from shuffledeploy.model.errors import Failure, UsageError

#: What can come of a program, in the order in which a table counts them.
OUTCOMES = ("right", "refused", "wrong", "crashed", "missing")
#: What is done with a program, in this order.
STEPS = ("traced", "compiled", "compared")


@dataclasses.dataclass(frozen=True)
class CheckedProgram:
    """What came of a program on a target.

    Attributes
    ----------
    network, target : str
        Which program, and the target by name.
    outcome : str
        One of ``OUTCOMES``.
    detail : str
        The reason where it is not right.
    seconds : dict
        How long each of ``STEPS`` that was finished took, in seconds of wall time.
    max_rel_error : float or None
        Largest error of an answer, over the largest answer of PyTorch's.
    kernel_calls, shuffle_kernels : int or None
        Of the bundle.
    """

    network: str
    target: str
    outcome: str
    detail: str = ""
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    max_rel_error: float | None = None
    kernel_calls: int | None = None
    shuffle_kernels: int | None = None


@dataclasses.dataclass(frozen=True)
class _Step:
    """A step that a process has finished."""

    name: str
    seconds: float


def check_program(
    name: str, program: PackageNetwork | Callable[[], Any], target: str, limit_s: float
) -> CheckedProgram:
    """Compile a program and compare it with PyTorch on the device of a target.

    Parameters
    ----------
    name : str
        What the row calls it.
    program : PackageNetwork or Callable
        A network of a package, or what gives an exported program.
    target : str
        The target by name.
    limit_s : float
        Seconds after which it is stopped and counted as crashed.
    """
    if isinstance(program, PackageNetwork) and not program.is_installed:
        return CheckedProgram(name, target, "missing", f"{program.package} is not installed")
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_answer, args=(name, program, target, there)
    )
    process.start()
    there.close()
    seconds: dict[str, float] = {}
    try:
        found = _last_message(here, time.monotonic() + limit_s, seconds)
    except EOFError:
        found = CheckedProgram(name, target, "crashed", "the process died")
    process.kill()
    process.join()
    if found is None:
        stood = next(step for step in STEPS if step not in seconds)
        found = CheckedProgram(
            name, target, "crashed", f"not done after {limit_s:g} s: not {stood}"
        )
    return dataclasses.replace(found, seconds=seconds)


def _last_message(
    here: Connection, until: float, seconds: dict[str, float]
) -> CheckedProgram | None:
    """Note the steps that a process tells of, until it tells what came of the program."""
    while here.poll(max(0.0, until - time.monotonic())):
        message = here.recv()
        if isinstance(message, CheckedProgram):
            return message
        seconds[message.name] = message.seconds
    return None


def _answer(name: str, program: Any, target: str, answer: Connection) -> None:
    """Compile and compare; a process of its own runs this."""
    try:
        answer.send(_compared(name, program, target, answer))
    except (UsageError, Failure) as error:
        answer.send(CheckedProgram(name, target, "refused", str(error)))
    except BaseException:
        last = traceback.format_exc().strip().splitlines()[-1]
        answer.send(CheckedProgram(name, target, "crashed", last))


def _compared(name: str, program: Any, target: str, answer: Connection) -> CheckedProgram:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        with _step("traced", answer):
            exported = _traced(program)
        with _step("compiled", answer):
            bundle = shuffledeploy.compile(exported, target=target, output=Path(folder) / "bundle")
        with _step("compared", answer):
            parity = shuffledeploy.check_parity(bundle)
    return CheckedProgram(
        name,
        target,
        outcome="right" if parity.passed else "wrong",
        detail="" if parity.passed else parity.verdict,
        max_rel_error=parity.max_rel_error,
        kernel_calls=bundle.manifest.kernel_calls,
        shuffle_kernels=bundle.manifest.shuffle_kernels,
    )


def _traced(program: PackageNetwork | Callable[[], Any]) -> Any:
    if not isinstance(program, PackageNetwork):
        return program()
    picture = torch.zeros(1, 3, program.size, program.size)
    pictures = picture.expand(4, -1, -1, -1)
    return torch.export.export(telling(program.make(), pictures), (picture,))


@contextlib.contextmanager
def _step(name: str, answer: Connection) -> Iterator[None]:
    began = time.monotonic()
    yield
    answer.send(_Step(name, time.monotonic() - began))
