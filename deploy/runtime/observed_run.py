"""One network, observed: parity, then a time or a count, and what it is estimated to take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.deploy.estimate.board_cycles import BoardCycles
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.runtime.device_fit import fitting_device
from shuffledeploy.deploy.runtime.execution import RunningNetwork, open_network
from shuffledeploy.deploy.runtime.latency import (
    Instructions,
    Latency,
    count_instructions,
    measure_latency,
)
from shuffledeploy.deploy.runtime.network_estimate import Cycles, estimate_network
from shuffledeploy.deploy.runtime.parity import Parity, check_parity
from shuffledeploy.model.errors import Failure, UsageError

Tell = Callable[[str | None], None]


@dataclass(frozen=True)
class BoardEstimate:
    """What a network is estimated to take on a board.

    Attributes
    ----------
    board : Board
        The board.
    cycles : BoardCycles or None
        Of one inference; None where they cannot be estimated.
    reason : str
        Why not; empty where they are.
    """

    board: Board
    cycles: BoardCycles | None
    reason: str = ""


@dataclass(frozen=True)
class ObservedRun:
    """What came of a network on a device, and on emulated boards.

    Attributes
    ----------
    device, core : str
        The device's name; its core, or ``core unknown``.
    parity : Parity
        Against PyTorch, there; it holds.
    figure : Latency or Instructions or None
        Measured on a real device, counted on an emulated one; None where it does not tell which
        it is.
    cycles : Cycles or None
        Estimated in the library, where the device counts.
    boards : tuple of BoardEstimate
        For each board that was asked for.
    """

    device: str
    core: str
    parity: Parity
    figure: Latency | Instructions | None
    cycles: Cycles | None
    boards: tuple[BoardEstimate, ...]


def observe(
    bundle: Bundle,
    device: str | None,
    pinned_to: str | None,
    boards: Sequence[Board],
    tell: Tell,
) -> ObservedRun:
    """Run a network on a device, and on an emulated core for each board of another core.

    Parameters
    ----------
    bundle : Bundle
        The network.
    device, pinned_to : str, optional
        Where; see :func:`deploy.devices.opening.open_device`.
    boards : sequence of Board
        What to estimate milliseconds for.
    tell : Callable
        Told what is being done.

    Raises
    ------
    UsageError
        The bundle does not fit the device.
    Failure
        A device's answers are not PyTorch's, or it fails.
    """
    with _proven(bundle, device, pinned_to, tell) as (network, parity):
        counts = network.device.can_count
        figure = _figure(network, tell)
        core = network.device.information.cpu or "core unknown"
        here = [board for board in boards if counts and board.core == core]
        estimated, cycles = _estimated(network, here, tell)
        if counts and cycles is None:
            cycles = _cycles(network, tell)
    for other in dict.fromkeys(board.core for board in boards if board not in here):
        there = [board for board in boards if board.core == other]
        estimated |= _on_core(bundle, other, there, tell)
    found = tuple(estimated[board.name] for board in boards)
    return ObservedRun(network.device.name, core, parity, figure, cycles, found)


@contextmanager
def _proven(
    bundle: Bundle, device: str | None, pinned_to: str | None, tell: Tell
) -> Iterator[tuple[RunningNetwork, Parity]]:
    """Load a network on a device whose answers are PyTorch's."""
    network = bundle.manifest.network
    tell(f"{network}: loading on {device or 'its device'}")
    with open_network(bundle, device, pinned_to) as running:
        tell(f"{network} on {running.device.name}: parity with PyTorch")
        parity = check_parity(running, bundle)
        parity.require(f"{running.device.name} of {network}")
        yield running, parity


def _figure(network: RunningNetwork, tell: Tell) -> Latency | Instructions | None:
    named = f"{network.bundle.manifest.network} on {network.device.name}"
    if network.device.can_count:
        tell(f"{named}: counting one inference")
        return count_instructions(network)
    # One that does not tell whether it is emulated may be: its time is not shown.
    if network.device.is_emulated is not False:
        return None
    tell(f"{named}: timing")
    return measure_latency(network)


def _cycles(network: RunningNetwork, tell: Tell) -> Cycles | None:
    tell(f"{network.bundle.manifest.network}: estimating the cycles of one inference")
    try:
        return estimate_network(network)
    except (UsageError, Failure):
        return None


def _estimated(
    network: RunningNetwork, boards: Sequence[Board], tell: Tell
) -> tuple[dict[str, BoardEstimate], Cycles | None]:
    """Estimate for boards with the core of an emulated device; also what the library takes."""
    found: dict[str, BoardEstimate] = {}
    cycles: Cycles | None = None
    for board in boards:
        tell(f"{network.bundle.manifest.network}: estimating one inference on {board.name}")
        try:
            cycles = estimate_network(network, board)
            found[board.name] = BoardEstimate(board, cycles.on_board)
        except (UsageError, Failure) as error:
            found[board.name] = BoardEstimate(board, None, str(error))
    return found, cycles


def _on_core(
    bundle: Bundle, core: str, boards: Sequence[Board], tell: Tell
) -> dict[str, BoardEstimate]:
    """Estimate for boards of one core, on an emulated one; tell why where the library does not fit.

    Raises
    ------
    Failure
        The answers there are not PyTorch's.
    """
    emulated = f"emulated:{core}"
    try:
        fitting_device(bundle.manifest, emulated)
    except UsageError:
        built = f"{bundle.manifest.cpu} ({bundle.manifest.architecture})"
        reason = f"the library is built for {built}: it does not run on a {core}"
        return {board.name: BoardEstimate(board, None, reason) for board in boards}
    with _proven(bundle, emulated, None, tell) as (network, _):
        return _estimated(network, boards, tell)[0]
