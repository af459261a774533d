"""What `tune.py --list-targets` shows: cores, boards and networks by name, at 80 columns."""

from __future__ import annotations

from rich.table import Table

from shuffledeploy.compiler.cores import CORES, describe_scheduling
from shuffledeploy.compiler.targets import ARM_CORES, HOST, find_target
from shuffledeploy.deploy.estimate.boards import BOARDS, Board
from shuffledeploy.deploy.estimate.caches import KIB
from shuffledeploy.model.plain_console import plain_console
from shuffledeploy.model.registry import names


def print_targets() -> None:
    """Print what can be named as a target, as a board, as a network."""
    console = plain_console()
    console.print(_targets())
    console.print(_boards())
    for board in BOARDS.values():
        if board.stands_in:
            console.print(f"* memcpy of {board.name}: {board.stands_in}")
    print("networks: " + ", ".join(names()))


def _targets() -> Table:
    table = Table(
        "target", "found in", "estimates by", title="Targets by name", title_justify="left"
    )
    for name in ARM_CORES:
        table.add_row(name, CORES[name].found_in, describe_scheduling(name))
    table.add_row(HOST, f"this machine: {find_target(HOST).cpu}", "")
    return table


def _boards() -> Table:
    """One line a board; a star where the rate is another board's."""
    table = Table(title="Boards by name (--board, or a .toml file)", title_justify="left")
    table.add_column("board", no_wrap=True)
    table.add_column("core", no_wrap=True)
    for heading in ("GHz", "caches, KiB", "memcpy, MB/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for board in BOARDS.values():
        name = f"{board.name} *" if board.stands_in else board.name
        clock, rate = f"{board.clock_ghz:g}", f"{board.memcpy_mb_s:.0f}"
        table.add_row(name, board.core, clock, _caches(board), rate)
    return table


def _caches(board: Board) -> str:
    caches = board.caches
    levels = (caches.first, caches.second, caches.third)
    return ", ".join(str(level.size // KIB) for level in levels if level)
