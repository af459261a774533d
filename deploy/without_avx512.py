"""Runs a command as on a core without AVX-512, of a machine whose core has it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from shuffledeploy.model.errors import UsageError, command, program_name

_DESCRIPTION = """\
CPUID, the instruction by which programs learn what a core can do, tells the command and whatever it
starts of the vendor's client core instead: Alder Lake on Intel's, Zen 3 on AMD's. Every engine then
takes the code that it has for laptops. Clock, caches and memory stay this machine's.

  without_avx512.py python deploy/bench.py --json build/bench-avx2.json
  without_avx512.py python compile/tune.py --target host --model resnext50-32x4d --minutes 5

It needs x86_64 and cpuid_fault in /proc/cpuinfo.
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog=program_name("without_avx512.py"), description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("program", help="the command to run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its own arguments")
    options = parser.parse_args(argv)
    if shutil.which(options.program) is None:
        raise UsageError(f"there is no program {options.program!r} to run")
    from shuffledeploy.deploy.benchmark.hidden_avx512 import environment_without_avx512

    variables = environment_without_avx512()
    sys.stdout.flush()
    os.execvpe(options.program, [options.program, *options.arguments], variables)


if __name__ == "__main__":
    sys.exit(main(None))
