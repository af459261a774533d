"""Build, start, list and stop emulated Cortex-A boards.

Examples
--------
``python deploy/device.py start --core cortex-a53`` keeps a board in the foreground until Ctrl-C;
with ``--background`` it stays until ``python deploy/device.py stop PID``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from shuffledeploy.compiler.cores import CORES, DEFAULT_CORE
from shuffledeploy.deploy.board.places import CONSOLE
from shuffledeploy.deploy.board.qemu import ensure_emulator
from shuffledeploy.deploy.devices.board_process import (
    Board,
    find_board,
    list_boards,
    start_board,
    stop_board,
)
from shuffledeploy.deploy.on_device.native_server import ensure_server
from shuffledeploy.model.errors import Failure, UsageError, command, program_name

_DESCRIPTION = """\
Emulated Cortex-A boards: real ARM code, real TVM runtime, real RPC, under QEMU; no root, no
hardware. They prove results and count instructions. They say nothing about time.

  device.py build                          fetch what a board needs (once, about 30 s, 150 MB)
  device.py start                          a board in the foreground, until Ctrl-C
  device.py start --core cortex-a53 --background
  device.py start --tracker HOST:PORT --key KEY
                                           registered at a tracker: tracker://HOST:PORT/KEY
  device.py list                           the boards that run
  device.py stop PID | all

The other commands start and end a board by themselves when given --device emulated, or
emulated:CORE. A board started here is used as --device rpc://127.0.0.1:PORT, several times over.
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    if options.action == "build":
        ensure_emulator()
        print(f"the emulated board is built: {ensure_server().folder}")
        return 0
    if options.action == "start":
        return _start(options)
    if options.action == "list":
        return _list()
    return _stop(options.board)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("device.py"), description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|start|list|stop")
    actions.add_parser("build", help="fetch and build what a board needs, if it is not there")
    start = actions.add_parser("start", help="start a board and print its device name")
    start.add_argument(
        "--core", default=DEFAULT_CORE, metavar="CORE",
        help=f"the core to emulate (default: {DEFAULT_CORE}): {', '.join(CORES)}",
    )  # fmt: skip
    start.add_argument(
        "--port", type=int, default=0, help="where to listen, on 127.0.0.1 (default: a free port)"
    )
    start.add_argument(
        "--tracker", default="", metavar="HOST:PORT", help="register at this tracker"
    )
    start.add_argument("--key", default="", help="the name to register (default: the core's)")
    start.add_argument(
        "--background", action="store_true", help="return at once; the board stays until 'stop'"
    )
    actions.add_parser("list", help="list the boards that run")
    stop = actions.add_parser("stop", help="end a board, or all of them")
    stop.add_argument("board", metavar="PID|all", help="process id, as 'list' shows it")
    return parser.parse_args(argv)


def _start(options: argparse.Namespace) -> int:
    """Start a board, and unless it goes to the background, wait for its end."""
    if options.key and not options.tracker:
        raise UsageError("--key names the board at a tracker: give --tracker HOST:PORT too")
    # A supervisor ends a command by SIGTERM: the board must go too, in the same order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with CONSOLE.status(f"starting an emulated {options.core}"):
        board = start_board(
            options.core, port=options.port, tracker=options.tracker,
            key=(options.key or options.core) if options.tracker else "",
            background=options.background,
        )  # fmt: skip
    print(f"{board.name}  emulated {board.core}, process {board.pid}", flush=True)
    if board.tracker:
        print(f"tracker://{board.tracker}/{board.key}", flush=True)
    if options.background:
        return 0
    try:
        while board.is_running:
            time.sleep(0.2)
    finally:
        was_running = board.is_running
        stop_board(board)
    if not was_running:
        raise Failure(f"the emulated board ended by itself (process {board.pid})")
    return 0


def _list() -> int:
    boards = list_boards()
    for board in boards:
        where = f"  tracker://{board.tracker}/{board.key}" if board.tracker else ""
        print(f"{board.pid}  {board.name}  {board.core}{where}")
    if not boards:
        print("no emulated board is running")
    return 0


def _stop(which: str) -> int:
    """End the boards named."""
    if which != "all" and not which.isdecimal():
        raise UsageError(f"'{which}' is no process id; give one of 'device.py list', or all")
    boards: list[Board] = list_boards() if which == "all" else [find_board(int(which))]
    for board in boards:
        stop_board(board)
        print(f"stopped {board.name} (process {board.pid})")
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
