"""Options of the command line that say what a network computes in."""

from __future__ import annotations

import argparse
from pathlib import Path

from shuffledeploy.compiler.cores import ARM, CORES, DEFAULT_CORE, no_half
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF, INT8, PRECISIONS
from shuffledeploy.model.errors import UsageError


def add_precision_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a command's."""
    add = parser.add_argument
    add("--precision", choices=list(PRECISIONS), default=FLOAT,
        help="what the network computes in, between inputs and outputs of float32; half precision"
        " (float16) on cores that have it, such as the cortex-a55 and cortex-a76;"
        " int8 on every 64-bit ARM core")  # fmt: skip
    add("--calibrate", type=Path, metavar="FOLDER|FILE.npz",
        help="with --precision int8: pictures, or an array of inputs, like those to come (100 are"
        " enough; default: normal noise)")  # fmt: skip
    add("--keep-float32", action="append", default=[], metavar="NAME",
        help="with another precision: a layer that computes in float32, or a module whose layers"
        " do, by the names of run.py --layers; may repeat")  # fmt: skip


def refuse_precision(options: argparse.Namespace) -> None:
    """Refuse a precision that the core lacks, and options that go with another one.

    Raises
    ------
    UsageError
        Says what is wrong and what to do.
    """
    core = CORES.get(DEFAULT_CORE if (options.target or ARM) == ARM else options.target)
    if options.precision == HALF and core is not None and not core.computes_in_half:
        raise UsageError(no_half(core.name))
    if options.keep_float32 and options.precision == FLOAT:
        raise UsageError(f"--keep-float32 goes with --precision {HALF} or {INT8}")
    if options.calibrate is not None:
        if options.precision != INT8:
            raise UsageError(f"--calibrate goes with --precision {INT8}")
        if not options.calibrate.exists():
            raise UsageError(f"--calibrate: there is no folder or file {options.calibrate}")
