"""Our networks beside other engines on an emulated core: instructions, cycles, milliseconds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.compiler.cores import DEFAULT_CORE
from shuffledeploy.compiler.ir.memory_layout import FLOAT, PRECISIONS
from shuffledeploy.deploy.estimate.boards import BOARD_HELP, find_board
from shuffledeploy.model.command_output import require_creatable, steps, write_json
from shuffledeploy.model.errors import FAILURE_STATUS, UsageError, command, program_name
from shuffledeploy.model.resolution import parse_resolution

_DESCRIPTION = """\
Runs each network on ncnn, ONNX Runtime, MNN, LiteRT, ExecuTorch and our own libraries, untuned and
with the records of tuning_logs, under QEMU as one ARM core: their aarch64 packages from PyPI, one
thread; in half precision ours, ncnn and MNN, in int8 ours, ONNX Runtime, LiteRT and ExecuTorch. One
warmed inference is counted, the whole process; its answers must be PyTorch's. Cycles are estimated
by the counts and llvm-mca, milliseconds by the simulated caches of a board too; no time was
measured.

  peers.py --board raspberry-pi-4                all of it, an hour
  peers.py --model shufflenet-g3-x0.5 --json build/peers.json
  peers.py --core cortex-a76 --precision float16     in half precision
  peers.py --core cortex-a76 --precision int8        in int8
  peers.py --board raspberry-pi-4 --model alexnet --resolution 224 --resolution 480x640

What was counted is kept in build/peers, and counted again when an engine, a library or the
estimator changed. An engine whose package cannot be fetched or whose converter fails is named and
left out, and the exit status is then 1.
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    require_creatable(options.json)
    board = find_board(options.board) if options.board is not None else None
    core = options.core or (board.core if board else DEFAULT_CORE)
    if board is not None and board.core != core:
        raise UsageError(f"{board.name} has a {board.core}: leave out --core {core}")
    sizes = [parse_resolution(text) for text in options.resolution]
    from shuffledeploy.deploy.benchmark.benchmark_plan import OWN
    from shuffledeploy.deploy.benchmark.counted_peers import MODELS, count_peers, plan_peers
    from shuffledeploy.deploy.benchmark.counted_report import print_peers

    models = options.model or MODELS
    jobs = plan_peers(models, options.engine, core, sizes or [OWN], options.precision)
    with steps("starting", len(jobs)) as tell:
        document = count_peers(jobs, core, tell, board)
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
        "--core", metavar="CORE",
        help="the core to emulate and to compile for (default: the core of --board, else"
        f" {DEFAULT_CORE})",
    )  # fmt: skip
    parser.add_argument("--board", metavar="B", help=BOARD_HELP)
    parser.add_argument("--model", action="append", metavar="NAME", help="may repeat")
    parser.add_argument(
        "--resolution", action="append", default=[], metavar="HxW",
        help="height and width of the image; may repeat (default: 224x224)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", action="append", default=[], metavar="NAME",
        help="only these: untuned, tuned, ncnn, onnxruntime, mnn, litert, executorch; may repeat",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=list(PRECISIONS), default=FLOAT,
        help="what all compute in, on a core that computes in it: in float16 ours, ncnn and MNN; in"
        " int8 ours, ONNX Runtime, LiteRT and ExecuTorch",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(None))
