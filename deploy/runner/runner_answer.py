"""What the bench runner says, read from JSON with suspicion: a device wrote it."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from msgspec import Meta

from shuffledeploy.deploy.devices.processor_state import ProcessorState
from shuffledeploy.model.errors import Failure

#: Milliseconds of something that runs at all.
_Time = Annotated[float, Meta(gt=0, lt=1e9)]
_Size = Annotated[float, Meta(ge=0, lt=1e300)]


class ComparedCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input: of each output the largest error, None where that is no number.

    The runner takes the inputs from the last to the first.
    """

    errors: Annotated[tuple[_Size | None, ...], Meta(min_length=1, max_length=64)]
    top1: bool
    top5: bool

    @property
    def numbers(self) -> list[float]:
        """The errors, as `deploy.runtime.parity.judged` takes them."""
        return [math.nan if error is None else error for error in self.errors]


class RunnerLatency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of single inferences, by the device's clock."""

    median_ms: _Time
    p10_ms: _Time
    p90_ms: _Time
    runs: Annotated[int, Meta(ge=1, le=1_000_000)]
    cold: bool


class KernelTime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one call of a kernel."""

    name: Annotated[str, Meta(pattern=r"^[\w.$+-]{1,300}$")]
    median_ms: Annotated[float, Meta(ge=0, lt=1e9)]


class RunnerAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that one run says; no time where it is emulated.

    ``part`` is the core's number in ``/proc/cpuinfo``, ``name`` what the device calls itself.
    """

    network: Annotated[str, Meta(max_length=300)]
    emulated: bool
    part: Annotated[str, Meta(pattern=r"^(0x[0-9a-fA-F]{1,8})?$")] = ""
    name: Annotated[str, Meta(pattern=r"^[ -~]{1,95}$")] | None = None
    cases: Annotated[tuple[ComparedCase, ...], Meta(max_length=100)] = ()
    before: ProcessorState | None = None
    after: ProcessorState | None = None
    latency: RunnerLatency | None = None
    kernels: Annotated[tuple[KernelTime, ...], Meta(max_length=10_000)] = ()

    def __post_init__(self) -> None:
        if self.emulated and (self.latency or self.kernels):
            raise ValueError("it is emulated, and times mean nothing there")


def read_answer(text: str, device: str) -> RunnerAnswer:
    """Read what the runner printed.

    Raises
    ------
    Failure
        If that is no such answer.
    """
    try:
        return msgspec.json.decode(text, type=RunnerAnswer)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Failure(f"{device}: what the runner says cannot be read: {error}") from error
