"""Compile every network of the zoo for every target and check it on a device: `make zoo`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.compiler.ir.memory_layout import FLOAT, PRECISIONS
from shuffledeploy.model.command_output import require_writable
from shuffledeploy.model.errors import command, program_name


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    require_writable(options.json)
    from shuffledeploy.deploy.actions.zoo_check import check_networks

    return check_networks(options)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("check_zoo.py"), description=(__doc__ or "").strip()
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="networks (default: all)")
    parser.add_argument(
        "--targets", nargs="+", default=["host", "arm"], metavar="TARGET",
        help="targets by name (default: host arm)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=list(PRECISIONS), default=FLOAT,
        help="what they compute in (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--resolution", metavar="HxW", help="input size (default: each its own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(None))
