"""Devices as the tuner sees them: scores for candidates, and the parity check of what came out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.markup import escape

from compile.bundle import Bundle
from compile.targets import CompileTarget
from compile.tuning.candidates import Workers
from compile.tuning.latency_score import BoardLatency, LocalLatency
from compile.tuning.score import Score
from deploy.device_names import parse_device_name
from deploy.devices import open_device
from deploy.emulator.cores import guest_of
from deploy.emulator.scheduling_models import model_of
from deploy.execution import default_device, start_network
from deploy.parity import Parity, check_parity
from deploy.reports import CONSOLE
from deploy.scores import CountedInstructions, EstimatedCycles
from model.errors import Failure, UsageError


class TuningDevices:
    """`compile.tuning.session.Devices`, by this package."""

    def default_name(self, target: CompileTarget) -> str:
        """Name the device that a target runs on where the user names none."""
        return default_device(target)

    def score(
        self, target: CompileTarget, device: str, kind: str | None
    ) -> AbstractContextManager[Score]:
        """Give what scores candidates on a device."""
        return score(target, device, kind)

    def check(self, bundle: Bundle, device: str) -> Parity:
        """Run a bundle on a device and compare it with PyTorch."""
        with open_device(device, default_core=bundle.manifest.cpu) as opened:
            return check_parity(start_network(bundle, opened), bundle)


@contextmanager
def score(target: CompileTarget, device: str, kind: str | None = None) -> Iterator[Score]:
    """Give what scores candidates on a device.

    Parameters
    ----------
    target : CompileTarget
        What the candidates are built for.
    device : str
        A device's name.
    kind : str, optional
        ``latency`` (what is taken on a real device where none is named), ``estimate`` (on an
        emulated one) or ``instructions``; the latter two always come from an emulated core.

    Raises
    ------
    UsageError
        If the target's code does not run on the device, or a latency is asked of an emulated one.
    Failure
        If an estimate was asked for and there is no llvm-mca.
    """
    parsed = parse_device_name(device, default_core=target.cpu)
    if parsed.kind == "emulated":
        yield _emulated(parsed.core, target, kind, device)
    elif kind in ("estimate", "instructions"):
        yield _emulated(target.cpu, target, kind, device)
    elif parsed.kind == "local":
        if not target.fits_this_machine:
            raise UsageError(
                f"{target.name} code does not run on this machine: name another --device"
            )
        with Workers(1) as timer:
            yield LocalLatency(timer, target.cpu)
    else:
        with open_device(device) as opened:
            if opened.is_emulated:
                yield _emulated(target.cpu, target, kind, device)
            else:
                yield BoardLatency(opened, target.cpu)


def _emulated(core: str, target: CompileTarget, kind: str | None, device: str) -> Score:
    """Give what an emulated core can honestly tell."""
    workers = Workers().count
    if kind == "latency":
        raise UsageError(
            f"{device} is emulated: the time that an emulator takes says nothing of the core."
            " Leave out --score, or name a real --device"
        )
    if target.architecture != "aarch64":
        raise UsageError(f"there is no emulated core for {target.name}: use --score latency")
    if kind == "instructions":
        return CountedInstructions(core, workers)
    if model_of(core) is None:
        _warn(f"LLVM has no scheduling model for {core}")
        return CountedInstructions(core, workers)
    try:
        return EstimatedCycles(guest_of(core), core, workers)
    except Failure as error:
        if kind == "estimate":
            raise
        _warn(str(error))
        return CountedInstructions(core, workers)


def _warn(reason: str) -> None:
    CONSOLE.print(
        f"[bold red]warning:[/] no estimate of cycles: {escape(reason)}. Candidates are ranked by"
        " instructions alone, which misleads where loads wait and units differ."
    )
