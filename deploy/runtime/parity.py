"""Parity: what a device answers, held against what PyTorch answered when the bundle was made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shuffledeploy.compiler.bundle.folder import Bundle, sample
from shuffledeploy.compiler.bundle.tolerances import (
    allowed_error,
    error_unit,
    magnitude,
    tolerance_text,
)
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.deploy.runtime.execution import LoadedNetwork, RunningNetwork
from shuffledeploy.model.errors import Failure

GRAPH = "none: every kernel writes what it should, so the graph passes differ from PyTorch"
COARSE = (
    "none: every kernel writes what it should, so the precision is too coarse for the network;"
    " run.py BUNDLE --layers says where, --keep-float32 NAME keeps layers from it"
)
NOT_TOLD = "not told: only the bundle's own library keeps what each kernel writes"


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far a device's answers are from PyTorch's.

    Attributes
    ----------
    max_abs_error : float
        Largest absolute difference of any output element in any case; NaN where one is.
    max_rel_error : float
        The same, relative to the largest magnitude among PyTorch's outputs of that case; in half
        precision, to the spread of the output's elements.
    top1_agreement, top5_agreement : float
        Share of cases with the same first class, and the same set of first five.
    cases : int
        Inputs that were tried: the stored reference and the seeded ones.
    tolerance : float
        Of the absolute error, for logits of order one. A case whose logits are larger is allowed
        as many times more: float32 rounds relative to magnitude. In half precision, of the error
        relative to the spread of the output's elements (:mod:`compiler.bundle.tolerances`).
    passed : bool
        Whether each case is within its tolerance. NaN never is.
    first_wrong_kernel : str or None
        After a failure: the first kernel call that differs, or that none does.
    precision : str
        What the network computes in.
    """

    max_abs_error: float
    max_rel_error: float
    top1_agreement: float
    top5_agreement: float
    cases: int
    tolerance: float
    passed: bool
    first_wrong_kernel: str | None = None
    precision: str = FLOAT

    def to_json(self) -> dict[str, Any]:
        """Give the fields for a JSON file, where numbers that are not finite become null."""
        fields = dataclasses.asdict(self)
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in fields.items()
        }

    @property
    def verdict(self) -> str:
        """One line for people."""
        by_spread = self.precision != FLOAT
        unit = "spread of the logits" if by_spread else "largest logit"
        of_what = f" of the spread ({self.precision})" if by_spread else ""
        text = (
            f"largest error {self.max_abs_error:.1e} ({self.max_rel_error:.1e} of the {unit}),"
            f" tolerance {tolerance_text(self.tolerance)}{of_what}; top-1 agrees in"
            f" {self.top1_agreement:.0%}, top-5 in {self.top5_agreement:.0%} of {self.cases} inputs"
        )
        return f"{'holds' if self.passed else 'does not hold'}: {text}"

    def require(self, where: str) -> None:
        """Raise where parity does not hold.

        Raises
        ------
        Failure
            Names the first wrong kernel.
        """
        if not self.passed:
            raise Failure(
                f"parity on {where} {self.verdict}; first wrong kernel: {self.first_wrong_kernel}"
            )


@dataclasses.dataclass(frozen=True)
class Case:
    """One input's comparison."""

    absolute: float
    relative: float
    within: bool
    top1: bool
    top5: bool


def check_parity(
    network: LoadedNetwork, bundle: Bundle, progress: Callable[[], None] = lambda: None
) -> Parity:
    """Run every reference input on the device and compare; name the first wrong kernel.

    Parameters
    ----------
    network : LoadedNetwork
        The bundle, or its network without a runtime, loaded.
    bundle : Bundle
        Where inputs and PyTorch's outputs are.
    progress : Callable
        Called after each input.
    """
    tolerance, precision = float(bundle.manifest.tolerance), bundle.manifest.precision
    inputs = bundle.reference_inputs()
    cases = []
    for values, expected in zip(inputs, bundle.reference_outputs(), strict=True):
        cases.append(compare_outputs(network.run(values), expected, tolerance, precision))
        progress()
    parity = parity_of(cases, tolerance, precision)
    if parity.passed:
        return parity
    wrong = NOT_TOLD
    if isinstance(network, RunningNetwork):
        wrong = first_wrong_kernel(network, bundle, inputs[0])
    return dataclasses.replace(parity, first_wrong_kernel=wrong)


def parity_of(cases: Sequence[Case], tolerance: float, precision: str = FLOAT) -> Parity:
    """Sum up the comparisons of all inputs."""
    return Parity(
        # Not max(): it forgets a NaN that is not the first.
        max_abs_error=float(np.max([case.absolute for case in cases])),
        max_rel_error=float(np.max([case.relative for case in cases])),
        top1_agreement=sum(case.top1 for case in cases) / len(cases),
        top5_agreement=sum(case.top5 for case in cases) / len(cases),
        cases=len(cases), tolerance=tolerance, passed=all(case.within for case in cases),
        precision=precision,
    )  # fmt: skip


def compare_outputs(
    actual: list[Array], expected: list[Array], tolerance: float, precision: str = FLOAT
) -> Case:
    """Compare all outputs of one run; classes are ranked by the first output.

    Raises
    ------
    Failure
        If number or shapes of the outputs differ.
    """
    if [a.shape for a in actual] != [e.shape for e in expected]:
        raise Failure(
            f"the device answers with shapes {[a.shape for a in actual]}, PyTorch with"
            f" {[e.shape for e in expected]}"
        )
    errors = [_error(a, e) for a, e in zip(actual, expected, strict=True)]
    ranked, wanted = _first_classes(actual[0]), _first_classes(expected[0])
    return judged(
        errors, [error_unit(e, precision) for e in expected], tolerance, precision,
        top1=bool((ranked[:, :1] == wanted[:, :1]).all()),
        top5=bool((np.sort(ranked) == np.sort(wanted)).all()),
    )  # fmt: skip


def judged(
    errors: Sequence[float], units: Sequence[float], tolerance: float, precision: str, *,
    top1: bool, top5: bool,
) -> Case:  # fmt: skip
    """Judge one input by each output's largest error, and what errors are told in parts of."""
    told = list(zip(errors, units, strict=True))
    within = all(error <= allowed_error(unit, tolerance, precision) for error, unit in told)
    relative = [error / unit if unit else error for error, unit in told]
    return Case(float(np.max(errors)), float(np.max(relative)), within, top1, top5)


def first_wrong_kernel(network: RunningNetwork, bundle: Bundle, inputs: list[Array]) -> str:
    """Find the first kernel call that writes something else than its unscheduled self.

    Compared are the samples that the bundle holds, made by the same kernels without schedules; a
    difference that spares all samples of a call shows at a later one.
    """
    names = bundle.manifest.kernel_order
    written = network.intermediates(inputs)
    for i, (name, expected, actual) in enumerate(
        zip(names, bundle.intermediate_samples(), written, strict=True)
    ):
        # One kernel's numbers need not spread: of half, too, errors are held against the largest.
        least = 1.0 if bundle.manifest.precision == FLOAT else 0.0
        allowed = bundle.manifest.tolerance * max(least, magnitude(expected))
        if not _error(sample(actual), expected) <= allowed:
            return f"{name} (call {i + 1} of {len(names)})"
    return GRAPH if bundle.manifest.precision == FLOAT else COARSE


def _error(actual: Array, expected: Array) -> float:
    if not actual.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(actual.astype(np.float64) - expected.astype(np.float64))))


def _first_classes(values: Array) -> Array:
    """Rank the last axis: the first five classes of each row."""
    rows = values.reshape(-1, values.shape[-1] if values.ndim else 1)
    return np.argsort(-rows.astype(np.float64), axis=-1, kind="stable")[:, :5]
