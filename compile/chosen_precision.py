"""The precision, of fewest bits or least time, in which a network still answers as in float32.

Networks are tried in the order in which they are taken to be the faster: int8, int8 with the layers
of most noise kept in float32, half precision, float32. Int8 is tried where the target has kernels
that read it, half precision where it computes in it. Each network runs on this machine, with the
target's arithmetic but not its instructions, on the inputs that are given; what counts is of how
many of them the largest answer is that of PyTorch in float32. Where somebody can estimate what a
network takes, the fastest of those that stay within the drop is taken, one of each precision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tvm
from torch.export import ExportedProgram

from shuffledeploy.compiler.bundle.layer_samples import layer_rows, layer_sample
from shuffledeploy.compiler.host_machine import default_machine
from shuffledeploy.compiler.int8_ranges import held_in_int8
from shuffledeploy.compiler.ir.graph import ENTRY, Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF, INT8
from shuffledeploy.compiler.layer_values import layers_of, standing_for
from shuffledeploy.compiler.lowered_network import Lowered, lower
from shuffledeploy.compiler.proof_arrays import answering, arrays_of, unscheduled_writes
from shuffledeploy.compiler.targets import HOST, CompileTarget, find_target
from shuffledeploy.model.errors import UsageError

#: Inputs that are run at most.
MOST_RUNS = 200
#: Layers that int8 may leave to float32, as a part of all.
MOST_KEPT = 0.25


@dataclasses.dataclass(frozen=True)
class TriedPrecision:
    """A network in some precision, and how often it answered as PyTorch does in float32.

    Attributes
    ----------
    precision : str
        What it computes in.
    kept : tuple of str
        Layers that stay float32.
    differ, inputs : int
        On how many of the inputs its largest answer was another.
    refused : str
        Why it cannot be compiled so; empty where it can.
    """

    precision: str
    kept: tuple[str, ...]
    differ: int
    inputs: int
    refused: str = ""

    @property
    def drop(self) -> float:
        """Percent of the inputs on which it answers otherwise."""
        return 100.0 * self.differ / self.inputs

    @property
    def name(self) -> str:
        """What computes in what."""
        if self.kept:
            return f"{self.precision} with {', '.join(self.kept)} in {FLOAT}"
        return self.precision

    @property
    def sentence(self) -> str:
        """Say what was tried and what came of it."""
        if self.refused:
            return f"{self.name}: {self.refused}"
        return f"{self.name}: {self.differ} of {self.inputs} answers differ ({self.drop:.2g} %)"


def choose_precision(
    exported: ExportedProgram,
    target: CompileTarget,
    inputs: Sequence[list[Array]],
    drop: float,
    say: Callable[[str], None] = lambda _: None,
    estimate: Callable[[TriedPrecision], float] | None = None,
) -> TriedPrecision:
    """Choose what a network is to compute in.

    Parameters
    ----------
    exported : ExportedProgram
        Its first answer has a number for each class on the last axis.
    target : CompileTarget
        In whatever precision.
    inputs : sequence of list of Array
        Like those to come, each of the program's shapes and types; the first `MOST_RUNS` are run.
        The more, the finer a drop can be told.
    drop : float
        Percent of the inputs that may be answered otherwise than in float32.
    say : Callable
        Told of each network that was tried, in a line.
    estimate : Callable, optional
        Gives the milliseconds that a network takes.

    Returns
    -------
    TriedPrecision
        The first that stays within the drop, float32 where no other does; with an `estimate` the
        one of least milliseconds among the first of each precision.

    Raises
    ------
    UsageError
        If PyTorch gives all inputs one class: then nothing can be told.
    """
    runs = inputs[:MOST_RUNS]
    ask = answering(exported)
    wanted = _classes(ask(values)[0] for values in runs)
    if np.unique(np.concatenate(wanted)).size == 1:
        raise UsageError(
            f"--precision auto: all {len(runs)} inputs have one class, which tells nothing of"
            " accuracy: give pictures of several, and trained weights"
        )
    within = _within(exported, target, inputs, wanted, drop, say)
    if estimate is None:
        return next(within)
    times: dict[TriedPrecision, float] = {}
    for tried in within:
        times[tried] = estimate(tried)
        say(f"{tried.name}: {times[tried]:.3g} ms (estimated)")
    return min(times, key=times.__getitem__)


def _within(
    exported: ExportedProgram,
    target: CompileTarget,
    inputs: Sequence[list[Array]],
    wanted: list[Array],
    drop: float,
    say: Callable[[str], None],
) -> Iterator[TriedPrecision]:
    """Yield of each precision the first network that stays within the drop, float32 last."""
    for precision in _precisions(target):
        for kept in _keeping(precision, exported, target, inputs):
            tried = _tried(exported, target.computing_in(precision), inputs, kept, wanted)
            say(tried.sentence)
            if not tried.refused and tried.drop <= drop:
                yield tried
                break
    yield TriedPrecision(FLOAT, (), 0, len(wanted))


def _precisions(target: CompileTarget) -> list[str]:
    """List what a target computes in beside float32, the one taken to be the fastest first."""
    int8 = [INT8] if target.core.multiplies_int8 else []
    return [*int8, HALF] if target.computes_in_half else int8


def _keeping(
    precision: str,
    exported: ExportedProgram,
    target: CompileTarget,
    inputs: Sequence[list[Array]],
) -> Iterator[tuple[str, ...]]:
    """Yield layers to keep in float32: none, then of int8 the noisiest, twice as many each time."""
    yield ()
    if precision != INT8:
        return
    try:
        noisiest = _noisiest(lower(exported, _run_as(target, INT8), None, inputs), inputs[0])
    except UsageError:
        return
    count = 1
    while count <= MOST_KEPT * len(noisiest):
        yield tuple(noisiest[:count])
        count *= 2


def _tried(
    exported: ExportedProgram,
    target: CompileTarget,
    inputs: Sequence[list[Array]],
    kept: tuple[str, ...],
    wanted: list[Array],
) -> TriedPrecision:
    """Run a network in a precision on this machine, and count where its classes are others."""
    run_as = _run_as(target, target.precision)
    try:
        lowered = lower(exported, run_as, None, inputs, kept)
    except UsageError as error:
        return TriedPrecision(target.precision, kept, 0, len(wanted), str(error))
    with default_machine(lowered.module, run_as) as machine:
        found = _classes(_first_answer(machine[ENTRY], values) for values in inputs[: len(wanted)])
    differ = sum(not np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    return TriedPrecision(target.precision, kept, differ, len(wanted))


def _run_as(target: CompileTarget, precision: str) -> CompileTarget:
    """Give the target whose kernels run here for those of a target in a precision.

    That is this machine, whose own kernels compute the same numbers faster. Where it has no
    arithmetic of half precision, it runs the target's kernels.
    """
    host = find_target(HOST)
    lacks = precision == HALF and not host.computes_in_half
    return (target if lacks else host).computing_in(precision)


def _noisiest(lowered: Lowered, inputs: list[Array]) -> list[str]:
    """List layers by the noise that each adds to the one before it, the most first.

    Noise is the energy of what a tensor differs by from PyTorch's in float32, in parts of the
    energy of that tensor about its mean.
    """
    writes = unscheduled_writes(lowered.module, inputs)
    held = held_in_int8(lowered.program.module)
    layers, samples = layers_of(lowered.program, writes, inputs, 1.0, held)
    added: dict[str, float] = {}
    before = 0.0
    for layer in layers:
        written = standing_for(writes[layer.call][0], layer.scale, layer.zero)
        actual, told = layer_sample(layer_rows(written)), samples[f"layer_{layer.call}"]
        signal = float(np.square(told - told.mean()).sum())
        noise = float(np.square(actual - told).sum()) / signal if signal else 0.0
        added[layer.name] = max(added.get(layer.name, 0.0), noise - before)
        before = noise
    return sorted(added, key=lambda name: -added[name])


def _first_answer(network: Callable[..., object], values: list[Array]) -> Array:
    """Run a network of TVM's virtual machine, and give its first answer."""
    given = [tvm.runtime.tensor(np.asarray(value, order="C")) for value in values]
    return arrays_of(network(*given))[0]


def _classes(answers: Iterator[Array]) -> list[Array]:
    """Give the class of the largest number, of each row of an answer."""
    return [answer.reshape(-1, answer.shape[-1]).argmax(axis=1) for answer in answers]
