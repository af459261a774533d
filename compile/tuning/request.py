"""What a user asks of the tuner."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shuffledeploy.model.folders import BUILD, records_folder

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    # Only named here: a command that refuses its arguments should not have to import TVM for it.
    from shuffledeploy.compiler.bundle.folder import Bundle
    from shuffledeploy.compiler.targets import CompileTarget
    from shuffledeploy.compiler.tuning.calibration import ReadPicture
    from shuffledeploy.model.foreign.checkpoint import Checkpoint
    from shuffledeploy.model.registry import Normalisation

    EstimateMs = Callable[[Bundle], float]

LOG_FOLDER = records_folder()
BUNDLE_FOLDER = BUILD / "bundles"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a user asks for; see `compile/tune.py --help`.

    Attributes
    ----------
    exported : ExportedProgram, optional
        The program itself, in place of a network's name or a file.
    name : str, optional
        Of the network, where it is not that of `model` or of the file.
    batch : int
        Images that a network of the zoo takes at once.
    standalone : str, optional
        Also build the network without a runtime: what its names in C are made of, the network's
        own where it is empty.
    apple : bool
        That also for Apple's systems.
    normalisation, labels : Normalisation, tuple of str
        Of its pictures and its classes, where they are not those of `weights` or `model`.
    calibrate, read_picture : Path, Callable, optional
        Inputs from which a network in int8 learns how large its numbers get, and what makes such of
        pictures.
    keep_float32 : tuple of str
        Layers, or modules of layers, that compute in float32 in a network of another precision.
    accuracy_drop : float, optional
        Percent of the inputs of `calibrate` that may be answered otherwise than in float32: the
        precision is chosen by that.
    estimate_ms : Callable, optional
        Estimates the milliseconds of a bundle on the board that was named: the precision is chosen
        by that, too.
    """

    target: CompileTarget
    model: str | None
    program: Path | None
    resolution: tuple[int, int] | None
    weights: Checkpoint | None
    trials: int | None
    seed: int
    device: str | None
    output: Path | None
    log_folder: Path
    dump_ir: Path | None
    check: bool
    minutes: float | None = None
    score: str | None = None
    measure_shortlist: bool = False
    exported: ExportedProgram | None = None
    name: str | None = None
    batch: int = 1
    standalone: str | None = None
    apple: bool = False
    normalisation: Normalisation | None = None
    labels: tuple[str, ...] = ()
    calibrate: Path | None = None
    keep_float32: tuple[str, ...] = ()
    accuracy_drop: float | None = None
    read_picture: ReadPicture | None = None
    estimate_ms: EstimateMs | None = None

    @property
    def network(self) -> str:
        """Name of the network in reports and paths."""
        if self.name is not None:
            return self.name
        if self.model is None:
            return self.program.stem if self.program is not None else "network"
        size = f"-{self.resolution[0]}x{self.resolution[1]}" if self.resolution else ""
        batch = f"-batch{self.batch}" if self.batch > 1 else ""
        return f"{self.model}{size}{batch}"

    @property
    def c_name(self) -> str | None:
        """What names in C are made of, where the network is built without a runtime."""
        return None if self.standalone is None else self.standalone or self.network

    @property
    def searches(self) -> bool:
        """Whether candidates may be scored, as far as can be told before the log is read."""
        return self.measure_shortlist or self.trials != 0

    @property
    def score_wanted(self) -> str | None:
        """The kind of score that the device must give."""
        return "latency" if self.measure_shortlist else self.score if self.searches else None

    @property
    def bundle_path(self) -> Path:
        """Where the bundle goes."""
        return self.output or BUNDLE_FOLDER / f"{self.network}-{self.target.folder_name}"
