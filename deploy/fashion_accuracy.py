"""Accuracy of the compiled network on real images, beside PyTorch's, image by image."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.compiler.ir.memory_layout import FLOAT, PRECISIONS
from shuffledeploy.deploy.devices.device_names import DEVICE_HELP, parse_device_name
from shuffledeploy.deploy.runtime.defaults import (
    ALLOWED_DISAGREEMENTS,
    ALLOWED_IN_HALF,
    ALLOWED_IN_INT8,
)
from shuffledeploy.model.command_output import require_writable
from shuffledeploy.model.errors import command, program_name
from shuffledeploy.model.fashion_data import FASHION

_DESCRIPTION = """\
Runs Fashion-MNIST's test images, which training never saw, through the compiled ShuffleNet and
through PyTorch, and lists every image on which the two disagree. Exit status 1 where more than
--allowed do.

  fashion_accuracy.py                                    10,000 images on this machine
  fashion_accuracy.py --target arm --images 500          500 on an emulated Cortex-A72
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    require_writable(options.json)
    if options.device is not None:
        parse_device_name(options.device)
    from shuffledeploy.deploy.actions.fashion_check import check_accuracy

    return check_accuracy(options)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("fashion_accuracy.py"), description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--bundle", type=Path, metavar="BUNDLE", help=f"a bundle of {FASHION}")
    source.add_argument(
        "--target", default="host", metavar="T", help="or what to compile it for (default: host)"
    )
    parser.add_argument(
        "--precision", choices=list(PRECISIONS), default=FLOAT,
        help=f"what it is compiled to compute in (default: {FLOAT})",
    )  # fmt: skip
    parser.add_argument("--device", metavar="D", help=f"{DEVICE_HELP}; default: what it is for")
    parser.add_argument("--images", type=int, default=10_000, metavar="N", help="the first N")
    parser.add_argument(
        "--allowed", type=int, metavar="N",
        help=f"how many images may be named differently (default {ALLOWED_DISAGREEMENTS}; in half"
        f" precision {ALLOWED_IN_HALF} of 10,000, in int8 {ALLOWED_IN_INT8})",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(None))
