"""What a device tells of the core that it runs on: its clock, its temperature."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from tvm import rpc

from shuffledeploy.deploy.devices.tvm_rpc_edges import PROCESSOR
from shuffledeploy.model.errors import Failure

# A clock that is read a little low is no throttling.
_THROTTLED = 0.02
_Number = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class ProcessorState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One reading; None where the device does not tell.

    Attributes
    ----------
    core : int or None
        The core that the session runs on.
    present_khz, highest_khz : int or None
        Its clock, and the highest that it has.
    millidegrees : int or None
        The processor's temperature, in thousandths of a degree Celsius.
    """

    core: _Number | None
    present_khz: _Number | None
    highest_khz: _Number | None
    millidegrees: _Number | None


@dataclass(frozen=True)
class ProcessorReadings:
    """What was read around a measurement.

    Attributes
    ----------
    core : int or None
        The core; None where it is not told, or was not the same throughout.
    clock_ghz, highest_clock_ghz : float or None
        The median of the clocks that were read, and the highest that the core has.
    throttled : float or None
        Part by which the clock was below the highest; 0 where that is too little to tell.
    celsius_before, celsius_after : float or None
        The processor's temperature.
    """

    core: int | None
    clock_ghz: float | None
    highest_clock_ghz: float | None
    throttled: float | None
    celsius_before: float | None
    celsius_after: float | None

    def __str__(self) -> str:
        """Give core, clock and throttling as far as they are known; empty where nothing is."""
        parts = [] if self.core is None else [f"core {self.core}"]
        if self.clock_ghz is not None:
            parts.append(f"{self.clock_ghz:.2f} GHz")
        if self.throttled:
            parts.append(f"throttled by {self.throttled:.0%}".replace("%", " %"))
        return ", ".join(parts)


def read_processor(session: rpc.RPCSession) -> ProcessorState | None:
    """Ask a device for its processor's state; None where it runs a server that tells nothing.

    Raises
    ------
    Failure
        If what it tells cannot be.
    """
    try:
        told = str(session.get_function(PROCESSOR)())
    except AttributeError:
        return None
    try:
        return msgspec.json.decode(told, type=ProcessorState)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Failure(f"what the device tells of its processor cannot be: {error}") from error


def summarize(states: Sequence[ProcessorState]) -> ProcessorReadings | None:
    """Put together what was read before, during and after a measurement; None where nothing was."""
    if not states:
        return None
    cores = {state.core for state in states}
    clocks = [state.present_khz for state in states if state.present_khz]
    highest = max((state.highest_khz or 0 for state in states), default=0)
    clock = statistics.median(clocks) if clocks else None
    below = 1 - clock / highest if clock and highest else None
    return ProcessorReadings(
        cores.pop() if len(cores) == 1 else None,
        clock / 1e6 if clock else None,
        highest / 1e6 if highest else None,
        None if below is None else round(below, 3) if below > _THROTTLED else 0.0,
        _celsius(states[0]),
        _celsius(states[-1]),
    )


def _celsius(state: ProcessorState) -> float | None:
    return None if state.millidegrees is None else state.millidegrees / 1e3
