"""Devices as the tuner sees them: scores for candidates, and the parity check of what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from rich.text import Text

from shuffledeploy.compiler.bundle.arrays import Array
from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.cores import scheduling_of
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.score import Evaluation, NetworkTimes, Score
from shuffledeploy.compiler.tuning.search.build_ahead import evaluation_here
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.compiler.tuning.search.latency_score import LocalLatency
from shuffledeploy.deploy.board.guests import guest_of
from shuffledeploy.deploy.devices.device_names import (
    EMULATED_TIME,
    DeviceName,
    parse_device_name,
    require_core,
)
from shuffledeploy.deploy.devices.opening import open_device, open_named
from shuffledeploy.deploy.devices.reached_devices import reached
from shuffledeploy.deploy.devices.trackers import Tracker
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.runtime.device_fit import default_device
from shuffledeploy.deploy.runtime.execution import start_network
from shuffledeploy.deploy.runtime.network_estimate import require_core_of
from shuffledeploy.deploy.runtime.parity import Parity, check_parity
from shuffledeploy.deploy.scoring.cluster_evaluation import ClusterEvaluation
from shuffledeploy.deploy.scoring.dask_cluster import connected
from shuffledeploy.deploy.scoring.network_times import time_calls
from shuffledeploy.deploy.scoring.scores import CountedInstructions, EstimatedCycles
from shuffledeploy.deploy.scoring.tracked_boards import BoardScore
from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.command_output import CONSOLE
from shuffledeploy.model.errors import Failure, UsageError


class TuningDevices:
    """`compiler.tuning.session.Devices`, by this package.

    Parameters
    ----------
    pinned_to : str, optional
        Where a phone or a board by ssh runs, see :func:`deploy.devices.opening.open_device`.
    board : Board, optional
        What the device has to be: one of another core is refused.
    cluster : str, optional
        Address of a Dask scheduler whose machines build and score a search's candidates; this
        machine if nothing is said.
    """

    def __init__(
        self, pinned_to: str | None = None, board: Board | None = None, cluster: str | None = None
    ) -> None:
        self._pinned_to = pinned_to
        self._board = board
        self._cluster = cluster

    def default_name(self, target: CompileTarget) -> str:
        """Name the device that a target runs on where the user names none."""
        return default_device(target)

    def score(
        self, target: CompileTarget, device: str, kind: str | None
    ) -> AbstractContextManager[Score]:
        """Give what scores candidates on a device."""
        return score(target, device, kind, self._pinned_to)

    @contextmanager
    def evaluation(
        self, target: CompileTarget, device: str, kind: str | None
    ) -> Iterator[Evaluation]:
        """Give what builds a search's candidates and scores them, here or on the cluster."""
        if self._cluster is not None:
            core = _core_of_cluster(target, device, kind)
            with (
                connected(self._cluster, _tell) as cluster,
                ClusterEvaluation(
                    cluster, target, core, _emulated(core, target, kind, device)
                ) as there,
            ):
                yield there
            return
        with (
            Workers(polite=True) as workers,
            self.score(target, device, kind) as scored,
            evaluation_here(scored, target, workers) as here,
        ):
            yield here

    def require(self, target: CompileTarget, device: str, kind: str | None) -> None:
        """Refuse now a device or a score that cannot be had, before a network is traced."""
        require(target, device, kind, self._pinned_to)
        if self._cluster is not None:
            _core_of_cluster(target, device, kind)
            with connected(self._cluster, _tell) as cluster:
                cluster.require_like_this()
        if self._board is not None and parse_device_name(device).kind != "tracker":
            with open_device(device, default_core=target.cpu, pinned_to=self._pinned_to) as opened:
                require_core_of(self._board, opened)

    def times_calls(self, device: str) -> bool:
        """Whether a device can time a network call by call: this machine can."""
        return parse_device_name(device).kind == "local"

    def time_calls(
        self,
        libraries: Sequence[Path],
        inputs: Sequence[Array],
        device: str,
        threads: int,
        tell: Callable[[int, int], None],
    ) -> list[NetworkTimes]:
        """Time libraries of one network in turns, whole and call by call."""
        assert self.times_calls(device)
        return time_calls(libraries, inputs, threads, tell)

    def check(self, bundle: Bundle, device: str) -> Parity:
        """Run a bundle on a device and compare it with PyTorch."""
        default = bundle.manifest.cpu
        with open_device(device, default_core=default, pinned_to=self._pinned_to) as opened:
            return check_parity(start_network(bundle, opened), bundle)


def require(
    target: CompileTarget, device: str, kind: str | None, pinned_to: str | None = None
) -> None:
    """Refuse a device or a score that cannot be had; a board is connected to, for a moment.

    Parameters
    ----------
    target : CompileTarget
        What the candidates are built for.
    device : str
        A device's name.
    kind : str, optional
        The score that is wanted, if one is.
    pinned_to : str, optional
        Where a phone or a board by ssh runs.

    Raises
    ------
    UsageError
        If the target's code does not run on the device, or it cannot give such a score.
    Failure
        If the device is not there; of a tracker's boards, with the keys that it has.
    """
    parsed = parse_device_name(device, default_core=target.cpu)
    require_core(pinned_to, parsed)
    if parsed.kind == "local":
        if kind in (None, "latency"):
            _require_this_machine(target)
        else:
            _require_emulated(target, kind, device)
    elif parsed.kind == "emulated":
        cache_folder()
        _require_emulated(target, kind, device)
    elif parsed.kind == "tracker":
        tracker = Tracker(parsed)
        tracker.require_boards()
        if kind == "latency" and tracker.free():
            _require_board(target, kind, device)
    else:
        _require_board(target, kind, device)


def _core_of_cluster(target: CompileTarget, device: str, kind: str | None) -> str:
    """Name the core that a cluster's machines emulate; they neither time nor hold boards."""
    parsed = parse_device_name(device, default_core=target.cpu)
    if target.architecture != "aarch64":
        raise UsageError(
            f"--cluster estimates for emulated cores, and there is none for {target.name}"
        )
    if kind == "latency" or (parsed.kind != "emulated" and kind is None):
        raise UsageError(
            "--cluster estimates and times nothing: add --score estimate, or leave it out and"
            " give a tracker's boards"
        )
    return parsed.core if parsed.kind == "emulated" else target.cpu


def _require_board(target: CompileTarget, kind: str | None, device: str) -> None:
    with open_device(device) as opened:
        if opened.is_emulated:
            _require_emulated(target, kind, device)


def _require_this_machine(target: CompileTarget) -> None:
    if not target.fits_this_machine:
        raise UsageError(f"{target.name} code does not run on this machine: name another --device")


def _require_emulated(target: CompileTarget, kind: str | None, device: str) -> None:
    if kind == "latency":
        raise UsageError(EMULATED_TIME.format(device))
    if target.architecture != "aarch64":
        raise UsageError(f"there is no emulated core for {target.name}: use --score latency")


@contextmanager
def score(
    target: CompileTarget, device: str, kind: str | None = None, pinned_to: str | None = None
) -> Iterator[Score]:
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
    pinned_to : str, optional
        Where a phone or a board by ssh runs.

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
    elif kind in ("estimate", "instructions") and parsed.kind != "tracker":
        yield _emulated(target.cpu, target, kind, device)
    elif parsed.kind == "local":
        _require_this_machine(target)
        with Workers(1) as timer:
            yield LocalLatency(timer, target.cpu)
    else:
        with reached(parsed, pinned_to) as place:
            yield from _on_boards(place.name, target, kind)


def _on_boards(name: DeviceName, target: CompileTarget, kind: str | None) -> Iterator[Score]:
    """Score on one board, or on all of a tracker's; emulated ones only count."""
    with open_named(name) as opened:
        is_emulated, can_count = bool(opened.is_emulated), opened.can_count
    counts = name.kind == "tracker" and kind == "instructions"
    if kind == "estimate" or (is_emulated and not counts):
        if name.kind == "tracker":
            _tell(f"cycles are estimated on this machine, not on the boards of {name.text}")
        yield _emulated(target.cpu, target, kind, name.text)
        return
    if counts and not is_emulated:
        raise UsageError(f"{name.text} are real boards, which count nothing: use --score latency")
    if counts and not can_count:
        raise UsageError(f"{name.text} are emulated by something that counts nothing")
    with closing(BoardScore(name, target, is_emulated=is_emulated, tell=_tell)) as scored:
        yield scored


def _emulated(core: str, target: CompileTarget, kind: str | None, device: str) -> Score:
    """Give what an emulated core can honestly tell."""
    workers = Workers().count
    _require_emulated(target, kind, device)
    if kind == "instructions":
        return CountedInstructions(core, workers)
    if scheduling_of(core) is None:
        _warn(f"LLVM has no scheduling model for {core}")
        return CountedInstructions(core, workers)
    try:
        return EstimatedCycles(guest_of(core), core, workers)
    except Failure as error:
        if kind == "estimate":
            raise
        _warn(str(error))
        return CountedInstructions(core, workers)


def _tell(sentence: str) -> None:
    CONSOLE.print(Text.assemble(("note:", "bold yellow"), f" {sentence}"))


def _warn(reason: str) -> None:
    sentence = (
        f" no estimate of cycles: {reason}. Candidates are ranked by instructions alone, which"
        " misleads where loads wait and units differ."
    )
    CONSOLE.print(Text.assemble(("warning:", "bold red"), sentence))
