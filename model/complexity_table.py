"""Command: the complexity of the networks, beside what their papers report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.model.errors import UsageError, command, program_name


@command
def main(argv: list[str] | None = None) -> int:
    """Count and print."""
    arguments = parser().parse_args(argv)
    if arguments.model is None and (arguments.resolution or arguments.layers or arguments.json):
        raise UsageError("--resolution, --layers and --json are of one network: add --model")
    from shuffledeploy.model.complexity_report import report

    return report(arguments)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    described = argparse.ArgumentParser(
        prog=program_name("complexity_table.py"),
        description="Count the multiply-adds and parameters of a network in its traced program. "
        "Without --model: every network that the ShuffleNet paper gives a complexity for, beside "
        "the paper's figure (its Table 1 counts the convolutions only).",
        epilog="examples: python model/complexity_table.py; "
        "python model/complexity_table.py --model alexnet --resolution 480x640; "
        "python model/complexity_table.py --model shufflenet-g3-x1 --layers --json g3.json",
    )
    described.add_argument("--model", metavar="NAME", help="one network, by its registered name")
    described.add_argument(
        "--resolution", metavar="HxW", help="height and width of the image (with --model)"
    )
    described.add_argument("--layers", action="store_true", help="each layer (with --model)")
    described.add_argument(
        "--json", metavar="FILE", type=Path, help="write the count there too (with --model)"
    )
    return described


if __name__ == "__main__":
    sys.exit(main(None))
