"""The paper's comparison with AlexNet, by this pipeline on your device, beside the paper's own."""

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
from shuffledeploy.deploy.estimate.boards import BOARD_HELP, find_board, target_of_board
from shuffledeploy.deploy.runtime.defaults import MODELS
from shuffledeploy.model.command_output import require_writable
from shuffledeploy.model.errors import UsageError, command, program_name
from shuffledeploy.model.resolution import parse_resolution

_DESCRIPTION = """\
Compiles AlexNet, ShuffleNet g3 0.5x and 1x, and MobileNet by the same pipeline, proves each against
PyTorch on the device, and sets them beside the paper's Table 8. On a real device the networks are
timed in turns, so that noise hits all alike; on an emulated one the instructions of one inference
are counted. A count is no time: it knows nothing of caches or of what a core does at once.

  compare.py --target host                      this machine, about two minutes
  compare.py --target arm                       an emulated Cortex-A72, about six minutes
  compare.py --board raspberry-pi-4             estimated milliseconds there, about ten minutes
  compare.py --board raspberry-pi-4 --peers build/peers.json     beside the best other engine
  compare.py --target cortex-a76 --device adb --core big
  compare.py --target cortex-a76 --device tracker://10.0.0.2:9190/pi5
  compare.py --target host --resolution 224 --resolution 480x640 --json c.json --chart c.png

Bundles are kept in build/bundles and compiled again when the compiler or a record changed.
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    require_writable(options.json)
    require_writable(options.chart)
    if options.target is None and options.board is None:
        raise UsageError("name what to compile for with --target, or a --board")
    if options.board is not None:
        options.target = target_of_board(find_board(options.board), options.target)
    if options.device is not None:
        require_core(options.core, parse_device_name(options.device))
    options.resolution = [parse_resolution(text) for text in options.resolution]
    from shuffledeploy.deploy.actions.compare_networks import compare_networks

    return compare_networks(options)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("compare.py"), description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--target", metavar="T",
        help="what to compile for: arm (Cortex-A72), cortex-a53, ..., host; see tune.py"
        " (default: the core of --board)",
    )  # fmt: skip
    parser.add_argument("--board", metavar="B", help=BOARD_HELP)
    parser.add_argument(
        "--device", metavar="D",
        help=f"{DEVICE_HELP}; default: local where the target fits this machine, else emulated",
    )  # fmt: skip
    parser.add_argument("--core", metavar="CORE", help=CORE_HELP)
    parser.add_argument(
        "--resolution", action="append", default=[], metavar="HxW",
        help="height and width of the image; may repeat (default: the network's own, 224x224)",
    )  # fmt: skip
    parser.add_argument(
        "--models", nargs="+", default=list(MODELS), metavar="NAME",
        help=f"networks of model/ to compare (default: {', '.join(MODELS)})",
    )  # fmt: skip
    parser.add_argument(
        "--peers", type=Path, metavar="FILE",
        help="other engines on the board, as peers.py --json writes them",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--chart", type=Path, metavar="FILE.png", help="draw the rows there too")
    parser.add_argument("--rebuild", action="store_true", help="compile even what is cached")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(None))
