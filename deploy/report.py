"""One page about networks, to send around: size, fusion, kernels, parity, speed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.deploy.devices.device_names import (
    CORE_HELP,
    DEVICE_HELP,
    parse_device_name,
    require_core,
)
from shuffledeploy.deploy.estimate.boards import BOARD_HELP, find_board
from shuffledeploy.model.command_output import require_writable
from shuffledeploy.model.errors import command, program_name

_DESCRIPTION = """\
Runs bundles (made by compile/tune.py) on a device and writes one HTML file about them: size, what
was fused and where shuffles went, kernels by their share, parity with PyTorch, and speed. On a real
device that is measured; on an emulated one instructions are counted, and milliseconds are estimated
for each --board. The paper's figures stand beside. The file needs no network and no script.

  report.py build/bundles/mine --output mine.html
  report.py build/bundles/mine --board raspberry-pi-4 --board rk3399-big --output mine.html
  report.py build/bundles/mine --device adb --output mine.html
  report.py A B --peers peers.json --compare pi4.json --output both.html
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    require_writable(options.output)
    for board in options.board:
        find_board(board)
    if options.device is not None:
        require_core(options.core, parse_device_name(options.device))
    from shuffledeploy.deploy.actions.write_report import write_report

    return write_report(options)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("report.py"), description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "bundle", type=Path, nargs="+", metavar="BUNDLE", help="folders made by tune.py"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE.html", help="the page to write"
    )
    parser.add_argument(
        "--board", action="append", default=[], metavar="B", help=f"{BOARD_HELP}; may repeat"
    )
    parser.add_argument(
        "--device", metavar="D",
        help=f"{DEVICE_HELP}; default: local where the library fits this machine, else emulated",
    )  # fmt: skip
    parser.add_argument("--core", metavar="CORE", help=CORE_HELP)
    parser.add_argument(
        "--peers", type=Path, metavar="FILE", help="other engines, as peers.py --json writes them"
    )
    parser.add_argument(
        "--compare", type=Path, action="append", default=[], metavar="FILE",
        help="networks side by side, as compare.py --json writes them; may repeat",
    )  # fmt: skip
    parser.add_argument(
        "--silicon", type=Path, metavar="FILE",
        help="errors of estimates by board, as validate_silicon.py --json writes them",
    )  # fmt: skip
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(None))
