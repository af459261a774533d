"""Boards: a core, its clock, what lies behind its caches. `boards.toml` has those that are known.

A file of the user's describes another by the same fields.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from shuffledeploy.compiler.cores import ARM, CORES, DEFAULT_CORE, LINE
from shuffledeploy.deploy.estimate.caches import ARM_CACHES, KIB, Cache, Caches
from shuffledeploy.model.errors import UsageError

BOARD_HELP = (
    "a board by its name (such as raspberry-pi-4), or a .toml file that describes one: estimate"
    " milliseconds there"
)
_TABLE = Path(__file__).with_name("boards.toml")
_FILE_ENDING = ".toml"
_LONGEST_FILE = 64 * KIB
# Of a core's whole line in one cycle; boards have 1 to 10.
_MOST_MEMORY_BYTES = LINE
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
    stands_in : str
        Whose rate of memcpy it is, and why, where none was published of this board.
    """

    name: str
    core: str
    clock_ghz: float
    memcpy_mb_s: float
    second: Cache | None = None
    third: Cache | None = None
    stands_in: str = ""

    @property
    def memory_bytes(self) -> float:
        """Bytes a cycle between memory and the caches: a copy moves each byte twice."""
        return _PASSES_OF_A_COPY * self.memcpy_mb_s / (self.clock_ghz * 1000)

    @property
    def caches(self) -> Caches:
        """Give the core's caches as they are on this board."""
        own = ARM_CACHES[self.core]
        return dataclasses.replace(own, second=self.second or own.second, third=self.third)


def target_of_board(board: Board, target: str | None) -> str:
    """Name the target of a board's core, which may be named beside the board.

    Raises
    ------
    UsageError
        Another target is named, or nothing can be compiled for that core.
    """
    core = board.core
    if target is not None and core != (DEFAULT_CORE if target == ARM else target):
        raise UsageError(f"{board.name} has a {core}: leave out --target {target}")
    if not CORES[core].is_target:
        known = ", ".join(core.name for core in CORES.values() if core.is_target)
        raise UsageError(f"{board.name} has a {core}, which is no target; there are {known}")
    return core


_Ghz = Annotated[float, msgspec.Meta(ge=0.1, le=10)]
_Rate = Annotated[float, msgspec.Meta(ge=50, le=1_000_000)]
_LEAST_KIB, _MOST_KIB, _MOST_WAYS = 16, 262_144, 64
_Kib = Annotated[int, msgspec.Meta(ge=_LEAST_KIB, le=_MOST_KIB)]
_Ways = Annotated[int, msgspec.Meta(ge=1, le=_MOST_WAYS)]


class _BoardFields(msgspec.Struct, forbid_unknown_fields=True):
    """A board: a core and six numbers, of which caches may be left out."""

    core: str
    clock_ghz: _Ghz
    memcpy_mb_s: _Rate
    second_level_kib: _Kib | None = None
    second_level_ways: _Ways | None = None
    third_level_kib: _Kib | None = None
    third_level_ways: _Ways | None = None


class _KnownBoard(_BoardFields, kw_only=True):
    """A board of the table: where its figures are from, too."""

    clock_source: str
    memcpy_source: str
    caches_source: str = ""
    stands_in: str = ""


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
        told = msgspec.toml.decode(path.read_bytes(), type=_BoardFields)
    except OSError as error:
        raise UsageError(f"the board {path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"the board {path} is not right: {error}") from error
    return _board(path.stem, told, f"the board {path}")


def _board(name: str, told: _BoardFields, where: str, stands_in: str = "") -> Board:
    """Make a board of its fields; `where` is what an error says of their place."""
    if told.core not in CORES:
        raise UsageError(
            f"{where} has the core '{told.core}', of which there is no model; there is one of"
            f" {', '.join(CORES)}. Without --board, instructions are counted all the same"
        )
    second = _level(where, "second", told.second_level_kib, told.second_level_ways)
    third = _level(where, "third", told.third_level_kib, told.third_level_ways)
    board = Board(name, told.core, told.clock_ghz, told.memcpy_mb_s, second, third, stands_in)
    caches = board.caches
    sizes = [level.size // KIB for level in (caches.first, caches.second, caches.third) if level]
    if sizes != sorted(set(sizes)):
        shown = ", ".join(map(str, sizes))
        raise UsageError(f"{where} has levels of {shown} KiB: each has to exceed the one before")
    if board.memory_bytes > _MOST_MEMORY_BYTES:
        raise UsageError(
            f"{where}: at {board.clock_ghz:g} GHz, {board.memcpy_mb_s:g} MB/s are"
            f" {board.memory_bytes:.0f} bytes a cycle, which no memory gives to one core"
        )
    return board


def _level(where: str, level: str, kib: int | None, ways: int | None) -> Cache | None:
    """Make a cache of two figures, of neither none."""
    if kib is None and ways is None:
        return None
    if kib is None or ways is None:
        raise UsageError(f"{where}: {level}_level_kib and _ways go together")
    if not _has_power_of_two_sets(kib, ways):
        raise UsageError(
            f"{where}: {kib} KiB of {ways} ways make no power of two of sets in the {level} level"
        )
    return Cache(kib * KIB, ways)


def _has_power_of_two_sets(kib: int, ways: int) -> bool:
    sets, rest = divmod(kib * KIB, LINE * ways)
    return not rest and sets.bit_count() == 1


def is_level(kib: int, ways: int) -> bool:
    """Whether a board may have such a level of cache."""
    fits = _LEAST_KIB <= kib <= _MOST_KIB and 1 <= ways <= _MOST_WAYS
    return fits and _has_power_of_two_sets(kib, ways)


def _known() -> dict[str, Board]:
    """Read the table."""
    told = msgspec.toml.decode(_TABLE.read_bytes(), type=dict[str, _KnownBoard])
    return {name: _board(name, row, str(_TABLE), row.stands_in) for name, row in told.items()}


#: By their names.
BOARDS = _known()
