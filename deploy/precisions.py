"""What each precision brings on a board: size, instructions, milliseconds, accuracy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.deploy.estimate.boards import BOARD_HELP, find_board
from shuffledeploy.model.command_output import require_writable
from shuffledeploy.model.errors import command, program_name
from shuffledeploy.model.fashion_data import FASHION

_DESCRIPTION = f"""\
Compiles a network in each precision that a board's core computes in, proves it on the emulated core
and prints one line each: the library's size, instructions, estimated milliseconds, and how many
test images of Fashion-MNIST the trained network {FASHION} knows in that precision there.

  precisions.py                                          ShuffleNet 0.5x on a Raspberry Pi 5
  precisions.py --board raspberry-pi-4 --model mobilenet-x1.0
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    require_writable(options.json)
    board = find_board(options.board)
    from shuffledeploy.deploy.actions.compare_precisions import compare_precisions

    return compare_precisions(options, board)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("precisions.py"), description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--board", default="raspberry-pi-5", metavar="B", help=f"{BOARD_HELP}; default: %(default)s"
    )
    parser.add_argument(
        "--model", default="shufflenet-g3-x0.5", metavar="NAME",
        help="a network of model/ (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=int, default=300, metavar="N",
        help="of Fashion-MNIST, the first N (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines there too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(None))
