"""Figures out of the JSON files of other commands, read with suspicion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from shuffledeploy.compiler.bundle.manifest_entries import Name, Precision
from shuffledeploy.model.errors import UsageError

_LONGEST_FILE = 1 << 26
_MOST_ROWS = 10_000
_Positive = Annotated[float, Meta(gt=0, lt=1e18)]
_Number = Annotated[int, Meta(ge=0, lt=1 << 53)]
_Resolution = Annotated[str, Meta(pattern=r"^[1-9]\d{0,5}x[1-9]\d{0,5}$")]


class OnBoard(msgspec.Struct, frozen=True):
    """The board of an estimate; the milliseconds there, where they stand beside it."""

    board: Name
    clock_ghz: _Positive
    milliseconds: _Positive | None = None

    def __str__(self) -> str:
        """Name the board and its clock."""
        return f"{self.board} at {self.clock_ghz:g} GHz"


class PeerRow(msgspec.Struct, frozen=True):
    """One network on one engine, as `peers.py` counts it.

    Attributes
    ----------
    model, resolution, engine : str
        The network; the size of its image as ``HxW``; the column of that command's table.
    engine_version : str or None
        The engine's.
    instructions, cycles : float
        Of one warmed inference, of the whole process: counted, estimated.
    on_board : OnBoard or None
        Milliseconds on a board, estimated, where one was named.
    model_mb : float or None
        Size of the model's files in MiB, counted.
    how : str
        How the engine was prepared; maybe empty.
    """

    model: Name
    resolution: _Resolution
    engine: Name
    engine_version: Name | None
    instructions: _Positive
    cycles: _Positive
    on_board: OnBoard | None = None
    model_mb: _Positive | None = None
    how: Annotated[str, Meta(max_length=2000)] = ""

    @property
    def milliseconds(self) -> float:
        """On the board; 0 where none was named."""
        return (self.on_board.milliseconds if self.on_board else None) or 0.0


class PeersFile(msgspec.Struct, frozen=True):
    """What `peers.py --json` writes, as far as it is shown: the core, the rows, the precision."""

    core: Name
    source: Name
    rows: Annotated[tuple[PeerRow, ...], Meta(max_length=_MOST_ROWS)]
    precision: Precision = "float32"


class ComparedDevice(msgspec.Struct, frozen=True):
    """Where networks were compared."""

    name: Name
    cpu: Name | None
    is_emulated: bool | None


class ComparedRow(msgspec.Struct, frozen=True):
    """One network at one resolution, as `compare.py` tells of it; see its `ComparisonRow`."""

    model: Name
    resolution: _Resolution
    kind: Literal["measured", "counted", "estimated"]
    value: _Positive
    unit: Literal["ms", "instructions"]
    ratio_to_alexnet: _Positive | None
    paper_ms: _Positive | None
    paper_ratio: _Positive | None
    on_board: OnBoard | None = None

    def __post_init__(self) -> None:
        if (self.kind == "counted") != (self.unit == "instructions"):
            raise ValueError(f"{self.unit} cannot be {self.kind}")


class Comparison(msgspec.Struct, frozen=True):
    """What `compare.py --json` writes, as far as it is shown."""

    target: Name
    device: ComparedDevice
    paper: Name
    rows: Annotated[tuple[ComparedRow, ...], Meta(min_length=1, max_length=_MOST_ROWS)]

    def __post_init__(self) -> None:
        if self.device.is_emulated and any(row.kind == "measured" for row in self.rows):
            raise ValueError("times of an emulated device say nothing about an ARM core")

    def place(self, row: ComparedRow) -> str:
        """Name where a row's figure is from."""
        if row.on_board is not None:
            return str(row.on_board)
        return f"{self.device.name} ({self.device.cpu})" if self.device.cpu else self.device.name


class BoardErrors(msgspec.Struct, frozen=True):
    """How far estimates for a board are from published times.

    Attributes
    ----------
    networks : int
        That were compared.
    median_error, largest_error : float
        Distances of estimate over measured time from 1.
    blind : bool
        Whether nobody looked at that board's times while the estimate was made.
    """

    networks: _Number
    median_error: Annotated[float, Meta(ge=0, lt=1e6)]
    largest_error: Annotated[float, Meta(ge=0, lt=1e6)]
    blind: bool = False

    def ends(self, milliseconds: float) -> tuple[float, float] | None:
        """Between which times an estimate lies by the largest error; None where that has no end."""
        if self.largest_error >= 1:
            return None
        return milliseconds / (1 + self.largest_error), milliseconds / (1 - self.largest_error)

    def __str__(self) -> str:
        """Say it for people."""
        return (
            f"median error {self.median_error:.0%}, largest {self.largest_error:.0%}, beside"
            f" {self.networks} published times{' (a blind test)' if self.blind else ''}"
        )


class SiliconFile(msgspec.Struct, frozen=True):
    """What `validate_silicon.py --json` writes, as far as it is shown: errors by board."""

    boards: Annotated[dict[Name, BoardErrors | None], Meta(max_length=_MOST_ROWS)]


_File = TypeVar("_File", PeersFile, Comparison, SiliconFile)


def read_figures(path: Path, kind: type[_File], option: str, writer: str) -> _File:
    """Read a file that another command wrote.

    Parameters
    ----------
    path : Path
        The file.
    kind : type
        What it has to be.
    option, writer : str
        The option that named it, and the command that writes such files, for the message.

    Raises
    ------
    UsageError
        It cannot be read, or is something else.
    """
    try:
        if not path.is_file():
            raise UsageError(f"{option}: there is no file {path}")
        if path.stat().st_size > _LONGEST_FILE:
            raise UsageError(f"{option}: {path} is longer than any file of {writer} --json")
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise UsageError(f"{option}: {path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{option}: {path} is no file of {writer} --json ({error})") from error
