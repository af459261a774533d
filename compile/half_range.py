"""Whether a network's numbers stay within half precision, and by what they are kept small.

Half precision ends at 65,504, and what is beyond is infinite, in silence. The float32 network is
run on the inputs of the proof: where the numbers inside reach half of that, tensors in half hold a
part of what they stand for. The part is a power of two, so nothing is rounded by it
(:mod:`compiler.passes.graph.compute_in_half`).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from torch import fx

from shuffledeploy.compiler.bundle import folder as bundles
from shuffledeploy.compiler.frontend.importing import tensor_calls
from shuffledeploy.compiler.frontend.program import Program
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.passes.graph.compute_in_half import LARGEST
from shuffledeploy.compiler.program_values import layer_of, tensors_of_calls
from shuffledeploy.compiler.proof_arrays import SEEDS
from shuffledeploy.model.errors import UsageError

#: From here on numbers are kept small: other inputs may bring larger ones than those of the proof.
REACHED = LARGEST / 2
#: What the largest number is brought down to, at most.
KEPT_BELOW = 8192.0
#: The smallest part: with less, numbers of order one would lose digits at half's other end.
LEAST_SCALE = 2.0**-8


@dataclasses.dataclass(frozen=True)
class HalfRange:
    """The largest number of a network, and what is made of it.

    Attributes
    ----------
    largest : float
        Magnitude, on the inputs of the proof.
    layer : str
        Where: a module of the network, or the operator where it has no name.
    scale : float
        What tensors in half hold of what they stand for: 1, or a smaller power of two.
    """

    largest: float
    layer: str
    scale: float

    @property
    def sentence(self) -> str:
        """Say what was done to the numbers; empty where nothing had to be."""
        if self.scale == 1:
            return ""
        return (
            f"numbers reach {self.largest:,.0f} ({self.layer}), and half precision ends at"
            f" {LARGEST:,.0f}: tensors hold 1/{1 / self.scale:.0f} of what they stand for"
        )


def range_in_half(program: Program) -> HalfRange:
    """Find the largest number inside a network, and the part of it that half precision is to hold.

    Raises
    ------
    UsageError
        If it is so large that half precision cannot hold it beside numbers of order one.
    """
    largest, layer = 0.0, ""
    for seed in (0, *SEEDS):
        inputs = bundles.seeded_inputs(program.inputs, seed)
        reached = tensors_of_calls(program.core, inputs, _magnitude)
        for call, magnitude in zip(tensor_calls(program.core), reached, strict=True):
            if magnitude > largest and not _is_folded(call):
                largest, layer = magnitude, layer_of(call)
    scale = 1.0
    if largest >= REACHED:
        scale = 2.0 ** -math.ceil(math.log2(largest / KEPT_BELOW))
    if scale < LEAST_SCALE:
        raise UsageError(
            f"half precision ends at {LARGEST:,.0f}, and the network's numbers reach {largest:.1e}"
            f" ({layer}): compile it with --precision float32"
        )
    return HalfRange(largest, layer, scale)


def _magnitude(values: Array) -> float:
    """Give the largest magnitude among float32 numbers that are finite; 0 where there are none."""
    if values.dtype != np.float32 or not values.size:
        return 0.0
    largest = max(float(values.max()), -float(values.min()))
    if math.isfinite(largest):
        return largest
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _is_folded(call: fx.Node) -> bool:
    """Whether a call's tensor is in no compiled network: only a batch norm reads it."""
    return bool(call.users) and all("batch_norm" in str(user.target) for user in call.users)
