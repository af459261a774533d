"""Prove the estimate of cycles on this machine, which can be timed.

Method. From the seed: networks of the zoo are drawn, and of their kernels (at most 6 million
multiply-adds) three of each kind: grouped pointwise, depthwise, first convolution, classifier. Of
each kernel 64 candidates are drawn, no two of the same code, good and bad: up to 32 from the
tuner's own search, steered by times roughly taken here, and the others at random from
MetaSchedule's stock design space for CPUs (its tilings, vectors and unrolling of the same kernel,
without parallel loops). The estimate has no say in either. All are then timed on this machine: in
one process pinned to one core, in turns, 21 rounds of at least half a millisecond each; a
candidate's time is its median over the rounds, each against the round's mean. The same objects are
run in the emulator for this machine's architecture, with the same plugin, and estimated by the same
code as an ARM core's, with LLVM's model of this machine's core. Calls that are timed follow each
other, so the second of two emulated calls is the one that is estimated. An x86-64 machine's code is
compiled without AVX-512, which the emulator does not know; on an aarch64 machine it is the ARM
estimate itself that is proved.

Statistics. `spearman` and `kendall` compare estimate and time over all candidates of a kernel;
pooled, each kernel's times and estimates are divided by their medians and the candidates of all
kernels compared together (`spearman_by_kernel` is the mean of the kernels' own). Regret: of a
subset of 40 candidates, drawn 2000 times, how many percent the best of the one or three with the
least estimate is slower than the fastest; the mean over subsets, pooled over kernels alike.
`core` is the estimate without what moving lines between caches costs, `instructions` the plain
count; `noise` the times of every second round, which no estimate can be expected to beat by much.
`chosen_regret_mean` is the regret of what the tuner compiles: of candidates whose estimates are
within 5 % of the best the one of the fewest instructions.
`pooled_own_search` is the estimate among the candidates of the tuner's own search alone, which
differ by less.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.model.command_output import require_writable
from shuffledeploy.model.errors import command, program_name


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parser().parse_args(argv)
    require_writable(options.json)
    require_writable(options.plot)
    from shuffledeploy.deploy.actions.prove_score import prove_score

    return prove_score(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("validate_score.py"), description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the statistics as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw estimate against time")
    return parser


if __name__ == "__main__":
    sys.exit(main(None))
