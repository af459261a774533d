"""A Python program on an emulated core, counted as a whole process between two marks.

The engine's libraries, what they call of the C library, and the few thousand instructions of the
Python call: all is counted.
"""

from __future__ import annotations

import bisect
import json
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shuffledeploy.deploy.benchmark import board_worker
from shuffledeploy.deploy.benchmark.board_python import ensure_python, python_command
from shuffledeploy.deploy.board.guests import find_core
from shuffledeploy.deploy.board.qemu import ensure_emulator
from shuffledeploy.deploy.estimate.caches import Caches
from shuffledeploy.deploy.estimate.code_images import Image
from shuffledeploy.deploy.estimate.cycle_model import CycleModel
from shuffledeploy.deploy.estimate.elf_symbols import Function, function_at, read_functions
from shuffledeploy.deploy.estimate.executed_blocks import (
    Block,
    instructions_in,
    memory_events_of,
    read_blocks,
)
from shuffledeploy.deploy.estimate.memory_cycles import CodePiece
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.folders import SEARCH_PATH

RUN_S = 1800.0
# Bytes not executed between two pieces of code of unknown functions that part them.
GAP = 64
# Part of the instructions whose cycles may be unknown: the emulator's own pages.
UNKNOWN = 0.001


@dataclass(frozen=True)
class BoardProgram:
    """What is run on the emulated core.

    Attributes
    ----------
    label : str
        For people.
    module : str
        The engine's, by which `board_worker` loads it.
    files : mapping
        What the engine loads, by role.
    packages : tuple of Path
        Where the board finds the engine's package.
    """

    label: str
    module: str
    files: Mapping[str, str]
    packages: tuple[Path, ...] = ()


@dataclass(frozen=True)
class CountedProcess:
    """What a process executed between the marks.

    Attributes
    ----------
    instructions : int
        Of the whole process. Counted.
    cycles : float
        Of the core, caches hit and branches predicted. Estimated.
    pieces : tuple of CodePiece
        Each function apart, for a board's estimate; empty where no caches were simulated.
    """

    instructions: int
    cycles: float
    pieces: tuple[CodePiece, ...]


@dataclass(frozen=True)
class FileMapping:
    """A piece of a file in the process's memory; `base` is where the file's first byte would be."""

    low: int
    high: int
    offset: int
    path: str
    base: int
    is_code: bool


def count_process(
    program: BoardProgram, images: Sequence[Path], core: str, model: CycleModel, folder: Path,
    caches: Caches | None = None,
) -> CountedProcess:  # fmt: skip
    """Have an engine answer images on an emulated core, and the first one again, counted.

    Parameters
    ----------
    program : BoardProgram
        The engine.
    images : sequence of Path
        Arrays of NumPy's.
    core : str
        The core to emulate.
    model : CycleModel
        Of that core.
    folder : Path
        Where answers come: ``answer_0.npy`` and so on, ``counted.npy``.
    caches : Caches, optional
        Simulate these too, from the last run before the counted one.

    Raises
    ------
    Failure
        It does not run, or its cycles cannot be estimated.
    """
    request = {
        "module": program.module, "files": dict(program.files), "counts": str(folder / "counts"),
        "images": [str(image) for image in images], "output": str(folder),
        "caches": list(caches.shapes) if caches else None,
    }  # fmt: skip
    (folder / "request.json").write_text(json.dumps(request))
    _run(program, core, folder)
    report = (folder / "report.txt").read_text()
    blocks = read_blocks(report)
    mappings = read_mappings((folder / "maps.txt").read_text())
    parts = _parts(blocks, mappings, model)
    pieces = [CodePiece(cycles, events) for own, cycles in parts
              if (events := memory_events_of(own)) is not None]  # fmt: skip
    cycles = sum(cycles for _, cycles in parts)
    return CountedProcess(instructions_in(blocks), cycles, tuple(pieces))


def _run(program: BoardProgram, core: str, folder: Path) -> None:
    emulator, python = ensure_emulator(), ensure_python()
    command = python_command(
        emulator, python, find_core(core),
        [str(board_worker.__file__), str(folder / "request.json")],
        counts=folder / "counts", temporary=folder, packages=(*program.packages, SEARCH_PATH),
    )  # fmt: skip
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace",
            env=emulator.environment(), timeout=RUN_S, cwd=folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failure(f"{program.label}: no answer within {RUN_S:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise Failure(f"{program.label} on the board: status {done.returncode}, it said: {last}")


def read_mappings(maps: str) -> list[FileMapping]:
    """Read what files lie where from /proc/PID/maps."""
    rows: list[tuple[int, int, int, str, bool]] = []
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/"):
            low, high = (int(edge, 16) for edge in fields[0].split("-"))
            rows.append((low, high, int(fields[2], 16), fields[5], "x" in fields[1]))
    bases: dict[str, int] = {}
    for low, _, offset, path, _ in rows:
        if offset == 0:
            bases[path] = min(low, bases.get(path, low))
    return [FileMapping(low, high, offset, path, bases.get(path, low - offset), is_code)
            for low, high, offset, path, is_code in rows]  # fmt: skip


def _parts(
    blocks: Sequence[Block], mappings: Sequence[FileMapping], model: CycleModel
) -> list[tuple[list[Block], float]]:
    """Cost each function that was executed alone: its blocks and their cycles."""
    code = sorted((m for m in mappings if m.is_code), key=lambda m: m.low)
    pieces, unknown = part_blocks(blocks, code)
    image = Image(tuple((m.low, _content(m)) for m in code))
    lost = instructions_in(unknown)
    if lost > UNKNOWN * instructions_in(blocks):
        raise Failure(f"{lost} instructions lie in no file: their cycles cannot be estimated")
    costed = []
    estimates = model.estimate([(piece, image) for piece in pieces])
    for piece, estimate in zip(pieces, estimates, strict=True):
        if isinstance(estimate, str):
            raise Failure(f"cycles cannot be estimated: {estimate}")
        costed.append((piece, estimate.cycles))
    return costed


def _content(mapping: FileMapping) -> bytes:
    with Path(mapping.path).open("rb") as file:
        file.seek(mapping.offset)
        return file.read(mapping.high - mapping.low)


def part_blocks(
    blocks: Sequence[Block], code: Sequence[FileMapping]
) -> tuple[list[list[Block]], list[Block]]:
    """Part blocks by function: what lies side by side in a library is no nest of loops.

    Where a library has no symbols for a place, it is parted where `GAP` bytes were not executed.
    """
    starts = [mapping.low for mapping in code]
    functions: dict[str, tuple[Function, ...]] = {}
    pieces: defaultdict[tuple[Any, ...], list[Block]] = defaultdict(list)
    unknown: list[Block] = []
    last_end, part = 0, 0
    for block in sorted(blocks, key=lambda b: b.address):
        place = bisect.bisect_right(starts, block.address) - 1
        if place < 0 or block.address + block.size > code[place].high:
            unknown.append(block)
            continue
        path, base = code[place].path, code[place].base
        if path not in functions:
            functions[path] = _functions(path)
        part += block.address - last_end > GAP
        last_end = max(last_end, block.address + block.size)
        name = function_at(functions[path], block.address - base)
        pieces[(path, name) if name != "(other)" else (path, name, part)].append(block)
    return list(pieces.values()), unknown


def _functions(path: str) -> tuple[Function, ...]:
    try:
        return read_functions(Path(path))
    except UsageError:
        return ()
