"""The paper's Table 8 again: networks compiled by this pipeline, timed or counted side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from shuffledeploy.compiler.bundle.folder import Bundle, load_bundle
from shuffledeploy.compiler.cores import CORES, DEFAULT_CORE
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.library_facts import versions
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.request import LOG_FOLDER
from shuffledeploy.compiler.zoo import compile_network
from shuffledeploy.deploy.devices.opening import Device, open_device
from shuffledeploy.deploy.devices.processor_state import ProcessorReadings
from shuffledeploy.deploy.estimate.board_cycles import BoardCycles
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.runtime.defaults import ALEXNET
from shuffledeploy.deploy.runtime.execution import RunningNetwork, start_network
from shuffledeploy.deploy.runtime.latency import (
    Instructions,
    Latency,
    count_instructions,
    measure_interleaved,
)
from shuffledeploy.deploy.runtime.network_estimate import (
    estimate_network,
    on_board_json,
    require_core_of,
)
from shuffledeploy.deploy.runtime.parity import Parity, check_parity
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.folders import BUILD, COMMITTED_RECORDS, PACKAGE
from shuffledeploy.model.registry import input_shape
from shuffledeploy.model.resolution import write_resolution

BUNDLES = BUILD / "bundles"

PAPER = "Zhang et al., ShuffleNet, CVPR 2018, Table 8: one Snapdragon 820 core, one thread"
#: Milliseconds by network and resolution, from that table.
PAPER_MS: dict[str, dict[str, float]] = {
    "shufflenet-g3-x0.5": {"224x224": 15.2, "480x640": 87.4, "720x1280": 260.1},
    "shufflenet-g3-x1": {"224x224": 37.8, "480x640": 222.2, "720x1280": 684.5},
    "shufflenet-g3-x2": {"224x224": 108.8, "480x640": 617.0, "720x1280": 1857.6},
    "alexnet": {"224x224": 184.0, "480x640": 1156.7, "720x1280": 3633.9},
    "mobilenet-x1.0": {"224x224": 110.0, "480x640": 612.0, "720x1280": 1879.2},
}

Tell = Callable[[str | None], None]
Figure: TypeAlias = Latency | Instructions | BoardCycles


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
    """One network at one resolution.

    Attributes
    ----------
    model, resolution : str
        Name in `model.registry`; ``HxW``.
    kind, unit : str
        ``measured`` in ``ms`` (the median), ``estimated`` in ``ms``, or ``counted`` in
        ``instructions``.
    value : float
        In that unit.
    spread : dict or None
        ``p10``, ``p90`` in the same unit and ``runs``; None for a count, which has none.
    ratio_to_alexnet : float or None
        AlexNet's value over this one: how many times less. None where AlexNet is not compared.
    multiply_adds : int
        Of one inference, from the shapes of its kernels.
    kernels, kernels_with_record, shuffle_kernels : int
        In the library: all, those that were tuned, calls of those that only shuffle.
    paper_ms, paper_ratio : float or None
        The same from the paper, where it has them.
    parity : Parity
        Against PyTorch, on the same device.
    processor : ProcessorReadings or None
        Core, clock and temperature of a measurement, where the device tells them.
    on_board : BoardCycles or None
        What an estimate is made of.
    """

    model: str
    resolution: str
    kind: str
    value: float
    unit: str
    spread: dict[str, float] | None
    ratio_to_alexnet: float | None
    multiply_adds: int
    kernels: int
    kernels_with_record: int
    shuffle_kernels: int
    paper_ms: float | None
    paper_ratio: float | None
    parity: Parity
    processor: ProcessorReadings | None = None
    on_board: BoardCycles | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the row for a JSON file."""
        document = {**dataclasses.asdict(self), "parity": self.parity.to_json()}
        return document | on_board_json(self.on_board)


def resolution_text(name: str, resolution: tuple[int, int] | None) -> str:
    """Write a network's resolution, its own where none is given, as ``HxW``.

    Raises
    ------
    UsageError
        If there is no such network, or it takes no images of that size.
    """
    return write_resolution(input_shape(name, resolution)[2:])


def cached_bundle(
    name: str,
    resolution: tuple[int, int] | None,
    target: CompileTarget,
    *,
    folder: Path = BUNDLES,
    rebuild: bool = False,
    tuned: bool = True,
    standalone: bool = False,
    calibration: Sequence[list[Array]] = (),
    tell: Tell = lambda _: None,
) -> Bundle:
    """Give a network's bundle from the cache; compile it first where that one is absent or old.

    Old is a bundle that does not validate, was made by other versions or for other processor
    features, or before a source file of the compiler or a tuning record of the target changed.
    A network in int8 learns from `calibration` how large its numbers get. Without `tuned` no record
    is used; with `standalone` it has the network without a runtime, too.
    """
    kind = "" if tuned else "-untuned"
    path = folder / f"{name}-{resolution_text(name, resolution)}-{target.folder_name}{kind}"
    bundle = None if rebuild else still_good(path, target)
    if bundle is not None and (bundle.manifest.standalone is not None or not standalone):
        return bundle

    def progress(text: str) -> None:
        tell(f"{name}: {text}")

    logs = LOG_FOLDER if tuned else path / "no-logs"
    return compile_network(
        name, target, path, resolution=resolution, log_folder=logs, standalone=standalone,
        calibration=calibration, progress=progress,
    )  # fmt: skip


def still_good(path: Path, target: CompileTarget) -> Bundle | None:
    """Load a bundle from the cache; ``None`` where it is absent or old."""
    try:
        bundle = load_bundle(path)
    except UsageError:
        return None
    manifest = bundle.manifest
    made_for = (manifest.target, manifest.cpu, manifest.features, manifest.versions)
    if made_for != (target.name, target.cpu, target.features, versions()):
        return None
    sources = [*(PACKAGE / "compile").rglob("*.py"), *(PACKAGE / "model").rglob("*.py")]
    for folder in {LOG_FOLDER, COMMITTED_RECORDS}:
        sources += [file for file in folder.rglob("*") if file.is_file()]
    newest = max(file.stat().st_mtime for file in sources)
    return bundle if bundle.library.stat().st_mtime >= newest else None


@contextmanager
def compared_on(name: str, target: CompileTarget, pinned_to: str | None = None) -> Iterator[Device]:
    """Open the device of a comparison; plain ``emulated`` is the target's core."""
    default = target.cpu if target.cpu in CORES else DEFAULT_CORE
    with open_device(name, default_core=default, pinned_to=pinned_to) as device:
        yield device


def compare(
    bundles: Sequence[Bundle],
    device: Device,
    tell: Tell = lambda _: None,
    board: Board | None = None,
) -> list[ComparisonRow]:
    """Run networks of one resolution on a device: parity first, then times, counts or estimates.

    Parameters
    ----------
    bundles : sequence of Bundle
        The networks.
    device : Device
        Real ones are timed, the networks in turns; emulated ones count.
    tell : Callable
        Told what is being done, and None as each of three steps a network ends.
    board : Board, optional
        Estimate milliseconds there, on an emulated device with its core.

    Returns
    -------
    list of ComparisonRow
        In the same order.

    Raises
    ------
    UsageError
        A bundle does not fit the device, or the device has not the board's core.
    Failure
        A network's answers are not PyTorch's.
    """
    if board is not None:
        require_core_of(board, device)
    networks, parities = [], []
    for bundle in bundles:
        name = bundle.manifest.network
        tell(f"{name}: loading on {device.name}")
        networks.append(start_network(bundle, device))
        tell(None)
        tell(f"{name}: parity with PyTorch")
        parities.append(check_parity(networks[-1], bundle))
        parities[-1].require(f"{device.name} of {name}")
        tell(None)
    figures = _figures(networks, device, board, tell)
    base = next(
        (_value(figure) for bundle, figure in zip(bundles, figures, strict=True)
         if bundle.manifest.network == ALEXNET), None,
    )  # fmt: skip
    return [
        _row(bundle, figure, parity, base)
        for bundle, figure, parity in zip(bundles, figures, parities, strict=True)
    ]


def _figures(
    networks: Sequence[RunningNetwork], device: Device, board: Board | None, tell: Tell
) -> Sequence[Figure]:
    if board is not None:
        return [_estimated(network, board, tell) for network in networks]
    if not device.is_emulated:
        tell(f"timing {len(networks)} networks in turns")
        measured = measure_interleaved(networks)
        for _ in networks:
            tell(None)
        return measured
    counted = []
    for network in networks:
        tell(f"{network.bundle.manifest.network}: counting one inference")
        counted.append(count_instructions(network))
        tell(None)
    return counted


def _estimated(network: RunningNetwork, board: Board, tell: Tell) -> BoardCycles:
    tell(f"{network.bundle.manifest.network}: estimating one inference on {board.name}")
    found = estimate_network(network, board).on_board
    assert found is not None
    tell(None)
    return found


def _value(figure: Figure) -> float:
    if isinstance(figure, BoardCycles):
        return figure.milliseconds
    return figure.median_ms if isinstance(figure, Latency) else figure.total


def _kind(figure: Figure) -> tuple[str, str]:
    """Name a figure's kind and unit."""
    if isinstance(figure, Instructions):
        return "counted", "instructions"
    return ("measured" if isinstance(figure, Latency) else "estimated"), "ms"


def _row(bundle: Bundle, figure: Figure, parity: Parity, alexnet: float | None) -> ComparisonRow:
    manifest = bundle.manifest
    resolution = write_resolution(manifest.inputs[0].shape[2:])
    paper = PAPER_MS.get(manifest.network, {}).get(resolution)
    base = PAPER_MS[ALEXNET].get(resolution)
    kind, unit = _kind(figure)
    return ComparisonRow(
        model=manifest.network, resolution=resolution, kind=kind, value=_value(figure), unit=unit,
        spread={"p10": figure.p10_ms, "p90": figure.p90_ms, "runs": figure.runs}
        if isinstance(figure, Latency) else None,
        ratio_to_alexnet=None if alexnet is None else alexnet / _value(figure),
        multiply_adds=manifest.multiply_adds,
        kernels=len(manifest.kernels),
        kernels_with_record=manifest.kernels_with_record,
        shuffle_kernels=manifest.shuffle_kernels,
        paper_ms=paper, paper_ratio=base / paper if base and paper else None, parity=parity,
        processor=figure.processor if isinstance(figure, Latency) else None,
        on_board=figure if isinstance(figure, BoardCycles) else None,
    )  # fmt: skip
