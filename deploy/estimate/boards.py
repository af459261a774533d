"""Boards: a core, its clock, what lies behind its caches. One row each, or a file of the user's.

Sources of the rows. Clocks are those at which ncnn's table was measured, of its headings (of the
Jetson Nano: NVIDIA's data sheet). Rates of memcpy are tinymembench's, as sbc-bench publishes them
(github.com/ThomasKaiser/sbc-bench). In `Results.md`: rows ix.io/3F9C and 3InF (Raspberry Pi 4, 2240
and 2580 MB/s), 1iI5, 1ism and 1isD (Raspberry Pi 3B+, 1230, 1130 and 1120 MB/s; a 32-bit userland),
1I4j (Jetson Nano). In `results/reviews`: Radxa-Rock-4A-5.10-BSP.md, cpu4 and cpu0 (RK3399, a Rock
Pi 4A whose little cores ran at 1.416 GHz), RPi-5B-Rev1.0.md (Raspberry Pi 5). Second levels are
those of `compiler.cores`, which have the sizes of these boards. The Raspberry Pi 5's third level
has the size that its maker states for the BCM2712, and 16 ways, which are assumed.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from shuffledeploy.compiler.cores import CORES
from shuffledeploy.deploy.estimate.caches import CACHES, KIB, LINE, Cache, Caches
from shuffledeploy.model.errors import UsageError

BOARD_HELP = (
    "a board by its name (such as raspberry-pi-4), or a .toml file that describes one: estimate"
    " milliseconds there"
)
_FILE_ENDING = ".toml"
_LONGEST_FILE = 64 * KIB
# A copy reads each byte and writes it.
_PASSES_OF_A_COPY = 2


@dataclass(frozen=True)
class Board:
    """One core of a board, and its way to memory.

    Attributes
    ----------
    name : str
        By which commands find it.
    core : str
        A row of `compiler.cores.CORES`.
    clock_ghz : float
        At which it runs.
    memcpy_mb_s : float
        Megabytes (10^6 bytes) that one core copies in a second, from memory to memory.
    second : Cache or None
        The second level, where it is not that of `deploy.estimate.caches`.
    third : Cache or None
        The third level, where there is one.
    """

    name: str
    core: str
    clock_ghz: float
    memcpy_mb_s: float
    second: Cache | None = None
    third: Cache | None = None

    @property
    def memory_bytes(self) -> float:
        """Bytes a cycle between memory and the caches: a copy moves each byte twice."""
        return _PASSES_OF_A_COPY * self.memcpy_mb_s / (self.clock_ghz * 1000)

    @property
    def caches(self) -> Caches:
        """Give the core's caches as they are on this board."""
        own = CACHES[self.core]
        return dataclasses.replace(own, second=self.second or own.second, third=self.third)


BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        Board("raspberry-pi-3b+", "cortex-a53", 1.4, 1175),
        Board("raspberry-pi-4", "cortex-a72", 1.8, 2410),
        Board("raspberry-pi-5", "cortex-a76", 2.4, 4448, third=Cache(2048 * KIB, 16)),
        Board("rk3399-big", "cortex-a72", 1.8, 3554),
        Board("rk3399-little", "cortex-a53", 1.5, 1769),
        Board("jetson-nano", "cortex-a57", 1.43, 3680),
    )
}


def find_board(text: str) -> Board:
    """Return a board by its name, or from a file that ends in ``.toml``.

    Raises
    ------
    UsageError
        There is no such board; names the nearest. See :func:`read_board` for files.
    """
    if text.endswith(_FILE_ENDING):
        return read_board(Path(text))
    if text in BOARDS:
        return BOARDS[text]
    near = difflib.get_close_matches(text, BOARDS, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(
        f"no board is called '{text}'{hint}; there are {', '.join(BOARDS)}, or give a .toml file"
    )


_Ghz = Annotated[float, msgspec.Meta(ge=0.1, le=10)]
_Rate = Annotated[float, msgspec.Meta(ge=50, le=1_000_000)]
_Kib = Annotated[int, msgspec.Meta(ge=16, le=262_144)]
_Ways = Annotated[int, msgspec.Meta(ge=1, le=64)]


class _BoardFile(msgspec.Struct, forbid_unknown_fields=True):
    """A user's board: a core and six numbers, of which caches may be left out."""

    core: str
    clock_ghz: _Ghz
    memcpy_mb_s: _Rate
    second_level_kib: _Kib | None = None
    second_level_ways: _Ways | None = None
    third_level_kib: _Kib | None = None
    third_level_ways: _Ways | None = None


def read_board(path: Path) -> Board:
    """Read a user's board, which is called as its file is.

    Parameters
    ----------
    path : Path
        A TOML file of ``core``, ``clock_ghz``, ``memcpy_mb_s`` and, where they differ from those of
        the core, ``second_level_kib``, ``second_level_ways``, ``third_level_kib``,
        ``third_level_ways``.

    Raises
    ------
    UsageError
        The file cannot be read, lacks a figure, or has an absurd one.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"the board {path} is no file")
    try:
        if path.stat().st_size > _LONGEST_FILE:
            raise UsageError(f"{path} is no board: it has more than {_LONGEST_FILE // KIB} KiB")
        told = msgspec.toml.decode(path.read_bytes(), type=_BoardFile)
    except OSError as error:
        raise UsageError(f"the board {path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"the board {path} is not right: {error}") from error
    if told.core not in CORES:
        raise UsageError(
            f"the board {path} has the core '{told.core}'; known are {', '.join(CORES)}"
        )
    second = _level(path, "second", told.second_level_kib, told.second_level_ways)
    third = _level(path, "third", told.third_level_kib, told.third_level_ways)
    return Board(path.stem, told.core, told.clock_ghz, told.memcpy_mb_s, second, third)


def _level(path: Path, level: str, kib: int | None, ways: int | None) -> Cache | None:
    """Make a cache of two figures, of neither none."""
    if kib is None and ways is None:
        return None
    if kib is None or ways is None:
        raise UsageError(f"the board {path}: {level}_level_kib and _ways go together")
    sets, rest = divmod(kib * KIB, LINE * ways)
    if rest or not sets or sets & (sets - 1):
        raise UsageError(
            f"the board {path}: {kib} KiB of {ways} ways make no power of two of sets in the"
            f" {level} level"
        )
    return Cache(kib * KIB, ways)
