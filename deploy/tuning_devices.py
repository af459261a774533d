"""Devices as the tuner sees them: scores for candidates, and the parity check of what came out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from compile.bundle import Bundle
from compile.targets import CompileTarget
from compile.tuning.candidates import Workers
from compile.tuning.latency_score import BoardLatency, LocalLatency
from compile.tuning.score import Score
from deploy.device_names import parse_device_name
from deploy.devices import open_device
from deploy.execution import default_device, start_network
from deploy.parity import Parity, check_parity
from deploy.scores import CountedInstructions
from model.errors import UsageError


class TuningDevices:
    """`compile.tuning.session.Devices`, by this package."""

    def default_name(self, target: CompileTarget) -> str:
        """Name the device that a target runs on where the user names none."""
        return default_device(target)

    def score(self, target: CompileTarget, device: str) -> AbstractContextManager[Score]:
        """Give what scores candidates on a device."""
        return score(target, device)

    def check(self, bundle: Bundle, device: str) -> Parity:
        """Run a bundle on a device and compare it with PyTorch."""
        with open_device(device, default_core=bundle.manifest.cpu) as opened:
            return check_parity(start_network(bundle, opened), bundle)


@contextmanager
def score(target: CompileTarget, device: str) -> Iterator[Score]:
    """Give what scores candidates on a device: latency where it is real, else a count.

    Raises
    ------
    UsageError
        If the target's code does not run on the device.
    """
    parsed = parse_device_name(device, default_core=target.cpu)
    if parsed.kind == "local":
        if not target.fits_this_machine:
            raise UsageError(
                f"{target.name} code does not run on this machine: name another --device"
            )
        with Workers(1) as timer:
            yield LocalLatency(timer, target.cpu)
    elif parsed.kind == "emulated":
        yield CountedInstructions(parsed.core, Workers().count)
    else:
        with open_device(device) as opened:
            if opened.is_emulated:
                yield CountedInstructions(target.cpu, Workers().count)
            else:
                yield BoardLatency(opened, target.cpu)
