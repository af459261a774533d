"""Hold the estimate of milliseconds on boards against times that others measured there.

Method. ncnn publishes how long its benchmark's networks take on many ARM boards. The same networks
are run here on emulated cores, by the aarch64 package of ncnn that is nearest in time to each row
and can be run, as its program benchncnn runs them: empty weights, inputs of 0.01, one thread, the
same options. One warmed inference is counted, the whole process, with the board's caches simulated
from the warming run on. Of each function the estimate adds up what its code costs, what it waits
for lines of the caches, and the bytes from memory, at the board's own bandwidth, that do not come
while it works. Two constants were chosen on published times, see `deploy/estimate/caches.py`.

Statistics, by board: the geometric mean of estimate / measured, the median and the largest error,
the spread of the ratios (geometric standard deviation), the rank correlation. A board is marked
blind if no constant of the estimate may come from it.

The networks' files are ncnn's: --params names the folder `benchmark` of a checkout of
github.com/Tencent/ncnn. What was counted is remembered in the project's cache folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.model.command_output import require_writable
from shuffledeploy.model.errors import UsageError, command, program_name


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parser().parse_args(argv)
    if options.keep and options.network:
        raise UsageError("--keep wants all networks of a board: leave out --network")
    require_writable(options.json)
    require_writable(options.chart)
    from shuffledeploy.deploy.actions.prove_silicon import prove_silicon

    return prove_silicon(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("validate_silicon.py"), description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--params", type=Path, metavar="FOLDER", required=True,
        help="the folder benchmark of a checkout of ncnn",
    )  # fmt: skip
    parser.add_argument(
        "--board", action="append", default=[], metavar="NAME", help="only this one; may repeat"
    )
    parser.add_argument(
        "--network", action="append", default=[], metavar="NAME", help="only this one; may repeat"
    )
    parser.add_argument(
        "--keep", action="store_true",
        help="keep each board's errors where compare.py, run.py and reports take them from"
        " (with all their networks)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw estimate against measured")
    return parser


if __name__ == "__main__":
    sys.exit(main(None))
