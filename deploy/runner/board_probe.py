"""Measures a board that is really there, and writes the file that ``--board`` takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from shuffledeploy.compiler.cores import core_of_part
from shuffledeploy.compiler.native_tools import compile_c
from shuffledeploy.deploy.devices.device_names import DeviceName, require_core
from shuffledeploy.deploy.estimate.boards import is_level
from shuffledeploy.deploy.runner.bench_runner import (
    DEVICE_CODE,
    ensure_c_library,
    program_flags,
)
from shuffledeploy.deploy.runner.runner_places import run_on_silicon
from shuffledeploy.deploy.runtime.latency import refuse_times
from shuffledeploy.model.command_output import replaced
from shuffledeploy.model.errors import Failure

#: What stands for a core that is none of `compiler.cores`; ``--board`` refuses it.
UNKNOWN_CORE = "unknown"
_SOURCE = DEVICE_CODE / "board_probe.c"
_LEVELS = {"second": 2, "third": 3}
_Count = Annotated[int, Meta(ge=0, le=10**9)]


class ProbedLevel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cache as ``/sys`` tells it; None where it does not."""

    holds_data: bool
    level: Annotated[int, Meta(ge=0, le=99)]
    kib: _Count | None
    ways: _Count | None


class ProbedBoard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the probe says of the core that it ran on.

    Attributes
    ----------
    emulated : bool
        Whether the device is an emulator's; then nothing is measured.
    core : int
        The number of the core.
    part : str
        Of ``/proc/cpuinfo``, as ``0xd08``; empty where it tells none.
    highest_khz : int or None
        The highest clock that ``/sys`` tells.
    levels : tuple of ProbedLevel
        In the order of ``/sys``.
    hz : float or None
        The clock that was measured.
    block_kib : int or None
        What was copied at once.
    copied_bytes_a_second : float or None
        From memory to memory, by this core.
    """

    emulated: bool
    core: Annotated[int, Meta(ge=0, lt=1024)]
    part: Annotated[str, Meta(pattern=r"^(0x[0-9a-fA-F]{1,8})?$")]
    highest_khz: _Count | None
    levels: Annotated[tuple[ProbedLevel, ...], Meta(max_length=16)]
    hz: Annotated[float, Meta(ge=1e8, le=1e10)] | None = None
    block_kib: _Count | None = None
    copied_bytes_a_second: Annotated[float, Meta(ge=5e7, le=1e12)] | None = None

    @property
    def core_name(self) -> str:
        """Return the name of the core."""
        return core_of_part(self.part) or UNKNOWN_CORE


def probe_board(place: DeviceName, core: str | None = None) -> ProbedBoard:
    """Measure one core of a device and its way to memory (some seconds).

    Parameters
    ----------
    place : DeviceName
        Of kind ``local``, ``adb`` or ``ssh``.
    core : str, optional
        Which: ``big`` (if nothing is said), ``little``, ``any`` or a number.

    Raises
    ------
    UsageError
        If the device is emulated, takes no programs, or pins none to a core.
    Failure
        If it fails, or says what cannot be.
    """
    require_core(core, place)
    return read_probe(run_on_silicon(place, build_probe, [core] if core else []), place.text)


def build_probe(architecture: str, program: Path) -> None:
    """Compile the probe; nothing but Linux's kernel is needed where it runs."""
    ensure_c_library(architecture)
    compile_c(_SOURCE, program, (*program_flags(architecture), f"-I{DEVICE_CODE}"))


def read_probe(text: str, device: str) -> ProbedBoard:
    """Read what the probe printed.

    Raises
    ------
    UsageError
        If it found out that the device is emulated.
    Failure
        If that is no such answer, or has an absurd figure.
    """
    try:
        told = msgspec.json.decode(text, type=ProbedBoard)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Failure(f"{device}: what the probe says cannot be: {error}") from error
    if told.emulated:
        raise refuse_times(device)
    if told.hz is None or told.copied_bytes_a_second is None:
        raise Failure(f"{device}: the probe measured nothing, and says not that it is emulated")
    return told


def write_board(probed: ProbedBoard, device: str, path: Path) -> None:
    """Write a board as `deploy.estimate.boards.read_board` reads it, each figure with its kind.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    with replaced(path) as beside:
        beside.write_text("\n".join(_lines(probed, device)) + "\n", encoding="utf-8")


def _lines(probed: ProbedBoard, device: str) -> Iterator[str]:
    assert probed.hz is not None
    assert probed.copied_bytes_a_second is not None
    yield f"# The device {device}, core {probed.core}, as `deploy/device.py measure` found it."
    part = f"part {probed.part}" if probed.part else "no part"
    yield f'core = "{probed.core_name}"  # told: {part} in /proc/cpuinfo'
    highest = f"{probed.highest_khz / 1e6:g} at most" if probed.highest_khz else "none"
    clock = f"clock_ghz = {probed.hz / 1e9:.3g}"
    yield f"{clock}  # measured: operations in a chain; /sys tells {highest}"
    rate, block = probed.copied_bytes_a_second / 1e6, (probed.block_kib or 0) // 1024
    yield f"memcpy_mb_s = {rate:.0f}  # measured: {block} MiB by this core, the fastest copies"
    for name, level in _LEVELS.items():
        yield from _level_lines(probed, name, level)


def _level_lines(probed: ProbedBoard, name: str, level: int) -> Iterator[str]:
    """Give the lines of a level; why there are none where /sys tells too little."""
    caches = [cache for cache in probed.levels if cache.level == level and cache.holds_data]
    kib, ways = (caches[0].kib, caches[0].ways) if caches else (None, None)
    if not caches:
        yield f"# {name} level: /sys tells of none"
    elif not (kib and ways):
        yield f"# {name} level: /sys does not tell its size and its ways"
    elif not is_level(kib, ways):
        yield f"# {name} level: {kib} KiB of {ways} ways (told: /sys), which no board may have"
    else:
        yield f"{name}_level_kib = {kib}  # told: /sys"
        yield f"{name}_level_ways = {ways}  # told: /sys"
