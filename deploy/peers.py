"""Our networks beside other engines on an emulated core: instructions and estimated cycles."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.compiler.cores import DEFAULT_CORE
from shuffledeploy.model.command_output import require_creatable, steps, write_json
from shuffledeploy.model.errors import FAILURE_STATUS, command, program_name

_DESCRIPTION = """\
Runs each network on ncnn, ONNX Runtime, MNN and our own libraries, untuned and with the records of
tuning_logs, under QEMU as one ARM core: their aarch64 packages from PyPI, float32, one thread. One
warmed inference is counted, the whole process; its answers must be PyTorch's. Cycles
are estimated by the counts and llvm-mca; no time was measured.

  peers.py                                       all of it, some 20 minutes
  peers.py --model shufflenet-g3-x0.5 --json build/peers.json

What was counted is kept in build/peers, and counted again when an engine, a library or the
estimator changed.
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    require_creatable(options.json)
    from shuffledeploy.deploy.benchmark.counted_peers import MODELS, count_peers, plan_peers
    from shuffledeploy.deploy.benchmark.counted_report import print_peers

    jobs = plan_peers(options.model or MODELS, options.engine, options.core)
    with steps("starting", len(jobs)) as tell:
        document = count_peers(jobs, options.core, tell)
    print_peers(document)
    if options.json:
        write_json(options.json, document)
    return FAILURE_STATUS if document["failed"] else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("peers.py"), description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--core", default=DEFAULT_CORE, metavar="CORE",
        help="the core to emulate and to compile for (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--model", action="append", metavar="NAME", help="may repeat")
    parser.add_argument(
        "--engine", action="append", default=[], metavar="NAME",
        help="only these: untuned, tuned, ncnn, onnxruntime, mnn; may repeat",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(None))
