"""What a user asks of the tuner."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from compile.targets import CompileTarget

BUNDLE_FOLDER = Path("build") / "bundles"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a user asks for; see `compile/tune.py --help`."""

    target: CompileTarget
    model: str | None
    program: Path | None
    resolution: tuple[int, int] | None
    weights: Path | None
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

    @property
    def network(self) -> str:
        """Name of the network in reports and paths."""
        if self.model is None:
            return self.program.stem if self.program is not None else "network"
        size = f"-{self.resolution[0]}x{self.resolution[1]}" if self.resolution else ""
        return f"{self.model}{size}"

    @property
    def bundle_path(self) -> Path:
        """Where the bundle goes."""
        return self.output or BUNDLE_FOLDER / f"{self.network}-{self.target.name}"
