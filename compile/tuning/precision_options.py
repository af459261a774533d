"""Options of the command line that say what a network computes in."""

from __future__ import annotations

import argparse
from pathlib import Path

from shuffledeploy.compiler.cores import ARM, CORES, DEFAULT_CORE, no_half
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF, INT8, PRECISIONS
from shuffledeploy.compiler.tuning.number_options import number_option
from shuffledeploy.model.errors import UsageError

#: In place of a precision: the fewest bits, or on a board the least time, in which a network
#: answers as float32 does, as far as is allowed.
AUTO = "auto"
#: Percent of the inputs that may be answered otherwise where nothing is said.
USUAL_DROP = 0.5
_PERCENT = number_option(
    float, lambda percent: 0 <= percent < 100, "must be a percentage from 0 to below 100"
)


def add_precision_options(parser: argparse.ArgumentParser) -> None:
    """Describe the options of a command line that say what a network computes in."""
    add = parser.add_argument
    add("--precision", choices=[*PRECISIONS, AUTO], default=FLOAT,
        help="what the network computes in, between inputs and outputs of float32; half precision"
        " (float16) on cores that have it, such as the cortex-a55 and cortex-a76;"
        " int8 on every 64-bit ARM core; auto: what --accuracy-drop allows")  # fmt: skip
    add("--accuracy-drop", type=_PERCENT, metavar="PERCENT",
        help="with --precision auto: of the inputs of --calibrate, how many may be answered"
        f" otherwise than in float32 (default: {USUAL_DROP}). Tried are int8, int8 with the layers"
        " of most noise in float32, float16, float32, taken to be the faster in that order; with"
        " --board the fastest by the estimate is taken")  # fmt: skip
    add("--calibrate", type=Path, metavar="FOLDER|FILE.npz",
        help="with --precision int8 or auto: pictures, or an array of inputs, like those to come"
        " (100 are enough; default: normal noise)")  # fmt: skip
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
    if options.keep_float32 and options.precision in (FLOAT, AUTO):
        raise UsageError(f"--keep-float32 goes with --precision {HALF} or {INT8}")
    if options.precision == AUTO and options.calibrate is None:
        raise UsageError(
            f"--precision {AUTO} compares answers on inputs like those to come: give them by"
            " --calibrate"
        )
    if options.accuracy_drop is not None and options.precision != AUTO:
        raise UsageError(f"--accuracy-drop goes with --precision {AUTO}")
    if options.calibrate is not None:
        if options.precision not in (INT8, AUTO):
            raise UsageError(f"--calibrate goes with --precision {INT8} or {AUTO}")
        if not options.calibrate.exists():
            raise UsageError(f"--calibrate: there is no folder or file {options.calibrate}")


def allowed_drop(options: argparse.Namespace) -> float | None:
    """Give the drop of accuracy, in percent, that chooses the precision; None where it is named."""
    if options.precision != AUTO:
        return None
    return USUAL_DROP if options.accuracy_drop is None else float(options.accuracy_drop)
