"""What `tune.py` leaves behind: its options."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Describe the options of a command line that say what is written, and where."""
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="the bundle's folder (default: build/bundles/NAME-TARGET)",
    )
    add("--standalone", nargs="?", const="", metavar="NAME",
        help="also build the network without a runtime, for an app: NAME.o, libNAME.a, libNAME.so,"
        " NAME.h and a C example, in the bundle (NAME: the network's)")  # fmt: skip
    add("--apple", action="store_true",
        help="with --standalone: also libNAME-apple.a, for macOS and iOS on arm64")  # fmt: skip
    add("--dump-ir", type=Path, metavar="DIR", help="write the module after each pass here")
    add("--whole-layers", action="store_true",
        help="compute no layers together, strip by strip (to see what that brings)")  # fmt: skip
    add("--no-check", action="store_true", help="do not run the result on a device")
    add("--json", type=Path, metavar="FILE", help="write what came out as JSON")
    add("--plot", type=Path, metavar="FILE.png",
        help="draw the network's score against minutes and trials")  # fmt: skip
    add("--beside", type=Path, metavar="BENCH.json",
        help="draw other engines' latencies there too, from bench.py --json")  # fmt: skip
