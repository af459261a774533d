"""Times our networks beside six other engines, in one run on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.deploy.benchmark.engines import ENGINES
from shuffledeploy.deploy.benchmark.settings import Settings
from shuffledeploy.deploy.runtime.defaults import BENCH_RESULTS
from shuffledeploy.model.errors import UsageError, command, program_name
from shuffledeploy.model.resolution import parse_resolution

_DESCRIPTION = """\
Every engine runs every network in a process of its own, pinned to as many cores as it has threads,
float32, with its own best graph optimisations. Engines take turns: in each round each runs a few
inferences, in an order that changes. Answers are compared with PyTorch's before anything is timed.
Nothing is tuned: our networks are compiled with the records of tuning_logs.

  bench.py                                 everything; up to half an hour
  bench.py --quick                         AlexNet and the smallest ShuffleNet at 224x224
  bench.py --program mine.pt2              your own network
  bench.py --model alexnet --engine shuffledeploy --engine mnn --resolution 480x640

Results are kept in the JSON file. What is finished is not measured again unless a library, an
engine or the settings changed; --fresh measures all again.
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    if options.rounds < 2:
        raise UsageError(f"at least two rounds are needed, not {options.rounds}")
    options.resolution = [parse_resolution(text) for text in options.resolution]
    from shuffledeploy.deploy.actions.compare_engines import compare_engines

    return compare_engines(options)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("bench.py"), description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a part of it, two minutes")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="only this; may repeat"
    )
    parser.add_argument(
        "--program", dest="model", action="append", metavar="FILE.pt2", type=_program,
        help="a program that takes one image, saved with torch.export.save; may repeat",
    )  # fmt: skip
    parser.add_argument(
        "--engine", action="append", default=[], metavar="NAME",
        help=f"only this; may repeat: {', '.join(ENGINES)}",
    )  # fmt: skip
    parser.add_argument(
        "--resolution", action="append", default=[], metavar="HxW", help="only this; may repeat"
    )
    parser.add_argument(
        "--rounds", type=int, default=Settings.rounds, metavar="N",
        help=f"rounds of {Settings.runs} inferences of each (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", action="append", default=[], type=int, metavar="N",
        help="one pass for each; may repeat (default: 1, and 4 where there are four cores)",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=Path, default=BENCH_RESULTS, metavar="FILE",
        help="results, kept and resumed there (default: build/bench.json)",
    )  # fmt: skip
    parser.add_argument(
        "--chart", type=Path, metavar="FILE.png", help="default: beside the JSON file"
    )
    parser.add_argument("--fresh", action="store_true", help="measure all again")
    return parser.parse_args(argv)


def _program(name: str) -> str:
    """Take the file of a program by the name that tells it from a network of the zoo."""
    if not name.endswith(".pt2"):
        raise argparse.ArgumentTypeError(f"{name} does not end in .pt2")
    return name


if __name__ == "__main__":
    sys.exit(main(None))
