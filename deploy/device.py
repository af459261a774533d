"""Build, start, list and stop emulated boards and phones; manage what phones have of ours.

Examples
--------
``python deploy/device.py start --core cortex-a53`` keeps a board in the foreground until Ctrl-C;
with ``--background`` it stays until ``python deploy/device.py stop PID``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.compiler.cores import CORES, DEFAULT_CORE
from shuffledeploy.deploy.board.qemu import ensure_emulator
from shuffledeploy.deploy.devices.device_names import (
    CORE_HELP,
    parse_device_name,
    require_core,
    require_core_name,
)
from shuffledeploy.deploy.estimate.boards import find_board
from shuffledeploy.deploy.on_device.native_server import ensure_server
from shuffledeploy.model.command_output import require_writable
from shuffledeploy.model.errors import UsageError, command, program_name

_DESCRIPTION = """\
Emulated Cortex-A boards: real ARM code, real TVM runtime, real RPC, under QEMU; no root, no
hardware. They prove results and count instructions. They say nothing about time.

  device.py build                          fetch what a board needs (once)
  device.py start                          a board in the foreground, until Ctrl-C
  device.py start --core cortex-a53 --background
  device.py start --tracker HOST:PORT --key KEY
                                           registered at a tracker: tracker://HOST:PORT/KEY
  device.py start --phone                  an emulated Android phone behind adb: adb:SERIAL
  device.py list                           the boards and phones that run
  device.py stop PID | all

Android phones, real or emulated (--device adb needs none of these):

  device.py adb clean [SERIAL]             remove what was pushed to a phone
  device.py adb serve --tracker HOST:PORT --key KEY
                                           offer all phones to a tracker of this machine

Boards and phones that are really there, for estimates of milliseconds (--board):

  device.py measure mine.toml --device ssh://pi@raspberrypi
                                           measures clock and memory, reads caches from /sys

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
    if options.action == "measure":
        return _measure(options)
    return _manage(options)


def _manage(options: argparse.Namespace) -> int:
    """Start, list and stop."""
    from shuffledeploy.deploy.actions import running_devices

    if options.action == "start":
        options.core = find_board(options.board).core if options.board else options.core
        return running_devices.start(options)
    if options.action == "list":
        return running_devices.list_running()
    if options.action == "stop":
        return running_devices.stop(options.device)
    if options.adb_action == "clean":
        return running_devices.clean_phone(options.serial)
    require_core_name(options.core)
    return running_devices.serve(options.serials, options.tracker, options.key, options.core)


def _measure(options: argparse.Namespace) -> int:
    require_core(options.core, parse_device_name(options.device))
    if options.file.suffix != ".toml":
        raise UsageError(f"{options.file}: --board takes files that end in .toml")
    require_writable(options.file)
    from shuffledeploy.deploy.actions.measured_board import measure

    return measure(options)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("device.py"), description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="build|start|list|stop|measure|adb"
    )
    actions.add_parser("build", help="fetch and build what a board needs, if it is not there")
    start = actions.add_parser("start", help="start a board and print its device name")
    emulated = start.add_mutually_exclusive_group()
    emulated.add_argument(
        "--core", default=DEFAULT_CORE, metavar="CORE",
        help=f"the core to emulate (default: {DEFAULT_CORE}): {', '.join(CORES)}",
    )  # fmt: skip
    emulated.add_argument("--board", metavar="BOARD", help="or the board whose core to emulate")
    start.add_argument(
        "--port", type=int, default=0, help="where to listen, on 127.0.0.1 (default: a free port)"
    )
    start.add_argument(
        "--tracker", default="", metavar="HOST:PORT", help="register at this tracker"
    )
    start.add_argument("--key", default="", help="the name to register (default: the core's)")
    start.add_argument("--phone", action="store_true", help="an emulated phone behind adb")
    start.add_argument(
        "--background", action="store_true", help="return at once; it stays until 'stop'"
    )
    actions.add_parser("list", help="list the boards and phones that run")
    stop = actions.add_parser("stop", help="end a board or a phone, or all of them")
    stop.add_argument("device", metavar="PID|all", help="process id, as 'list' shows it")
    _add_measure(actions.add_parser("measure", help="measure a real board, for --board"))
    _add_adb(actions.add_parser("adb", help="manage Android phones"))
    return parser.parse_args(argv)


def _add_measure(measure: argparse.ArgumentParser) -> None:
    measure.add_argument("file", type=Path, metavar="FILE.toml", help="what to write")
    measure.add_argument(
        "--device",
        default="local",
        metavar="D",
        help="local (the default), adb[:SERIAL], ssh://...",
    )
    measure.add_argument("--core", metavar="CORE", help=CORE_HELP)


def _add_adb(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="adb_action", required=True, metavar="clean|serve")
    clean = actions.add_parser("clean", help="remove what was pushed to a phone")
    clean.add_argument("serial", nargs="?", default="", metavar="SERIAL", help="which phone")
    serve = actions.add_parser("serve", help="offer phones to a tracker until Ctrl-C")
    serve.add_argument("serials", nargs="*", metavar="SERIAL", help="which phones (default: all)")
    serve.add_argument("--tracker", required=True, metavar="HOST:PORT", help="on this machine")
    serve.add_argument("--key", required=True, help="what the phones are called there")
    serve.add_argument("--core", default="big", metavar="CORE", help=CORE_HELP)


if __name__ == "__main__":
    sys.exit(main(None))
