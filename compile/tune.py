"""Compile and tune a network for a core, prove it right on a device, and write a bundle.

The command of this package: it parses, calls and prints. It is also the one place where the
compiler and the devices meet. TVM and PyTorch take seconds to import: what can be refused without
them is refused first.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from shuffledeploy.compiler.cores import ARM, DEFAULT_CORE
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.tuning.network_options import (
    NetworkFiles,
    add_network_options,
    read_network_files,
)
from shuffledeploy.compiler.tuning.output_options import add_output_options
from shuffledeploy.compiler.tuning.precision_options import (
    AUTO,
    add_precision_options,
    allowed_drop,
    refuse_precision,
)
from shuffledeploy.compiler.tuning.request import Request
from shuffledeploy.compiler.tuning.search_options import add_search_options, require_search_agrees
from shuffledeploy.compiler.tuning.several_runs import single_runs
from shuffledeploy.deploy.devices.device_names import (
    CORE_HELP,
    EMULATED_TIME,
    device_of_board,
    parse_device_name,
    require_core,
)
from shuffledeploy.deploy.estimate.boards import BOARD_HELP, Board, find_board, target_of_board
from shuffledeploy.model.command_output import require_creatable, write_json
from shuffledeploy.model.errors import Failure, UsageError, command, program_name

if TYPE_CHECKING:
    from shuffledeploy.compiler.tuning.outcome import Outcome

EXAMPLES = """\
examples:
  python compile/tune.py --target arm
      ShuffleNet 0.5x (3 groups) for a Cortex-A72, checked on an emulated one
  python compile/tune.py --board raspberry-pi-4
      the same for that board's core, with the milliseconds that it is estimated to take there
  python compile/tune.py --target cortex-a53 --program mine.pt2 --trials 500
      your own network, saved with torch.export.save(program, "mine.pt2")
  python compile/tune.py --target arm --weights shufflenet_g3_w1.pth --labels imagenet.txt
      somebody else's checkpoint of a network of the zoo, which tells itself which
  python compile/tune.py --target cortex-a76 --device tracker://127.0.0.1:9190/pi5
      tuned on the real boards that registered with a TVM tracker
  python compile/tune.py --target cortex-a72 --cluster tcp://127.0.0.1:8786 --trials 2000
      candidates built and estimated on the machines of a Dask scheduler
  python compile/tune.py --model all --target cortex-a72 cortex-a76 --trials 1000 --no-check
      the whole zoo for two cores, one network after another
  python compile/tune.py --target cortex-a76 --precision float16
      in half precision, for cores that compute in it
  python compile/tune.py --target arm --standalone
      also as a C library without a runtime, for an app
  python compile/tune.py --target host --minutes 15 --plot build/curve.png
      tuned for this machine, with a curve of what that brought
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(argv)
    if options.list_targets:
        from shuffledeploy.deploy.presentation.target_tables import print_targets

        print_targets()
        return 0
    # All are looked at before the first is tuned, which may take hours.
    runs = [_Run(one, *_checked(one)) for one in single_runs(options)]
    requests = [_request(run) for run in runs]
    done = [_tuned(run, request) for run, request in zip(runs, requests, strict=True)]
    if len(runs) > 1:
        from shuffledeploy.compiler.tuning.report.outcome_tables import print_runs

        print_runs([outcome for outcome, _ in done])
    if options.json:
        documents = [document for _, document in done]
        write_json(options.json, documents[0] if len(runs) == 1 else {"runs": documents})
    parities = [outcome.parity for outcome, _ in done]
    return 0 if all(parity is None or parity.passed for parity in parities) else 1


class _Run(NamedTuple):
    """One network for one target: its options, and what they name read and checked."""

    options: argparse.Namespace
    board: Board | None
    files: NetworkFiles
    beside: dict[str, float]


def _checked(options: argparse.Namespace) -> tuple[Board | None, NetworkFiles, dict[str, float]]:
    """Read what a run's options name; refuse what can be told to be wrong from them alone."""
    board, files = _board(options), read_network_files(options)
    return board, files, _refuse_early(options)


def _tuned(run: _Run, request: Request) -> tuple[Outcome, dict[str, Any]]:
    """Tune a network and print what came out; give the outcome, and its fields for a JSON file."""
    from shuffledeploy.compiler.tuning.report.outcome_tables import print_outcome
    from shuffledeploy.compiler.tuning.session import tune_network
    from shuffledeploy.deploy.scoring.tuning_devices import TuningDevices

    options = run.options
    devices = TuningDevices(options.core, run.board, options.cluster)
    outcome = tune_network(request, devices)
    print_outcome(outcome)
    rules = _rules(outcome)
    estimated = _estimate(outcome, run.board) if run.board else {}
    if options.plot and outcome.search.curve:
        from shuffledeploy.deploy.presentation.tuning_chart import draw_curve

        draw_curve(options.plot, outcome, run.beside)
    elif options.plot:
        print(f"no curve to draw: {options.plot} was not written")
    return outcome, outcome.to_json() | rules | estimated


def _board(options: argparse.Namespace) -> Board | None:
    """Find the board that is named; it stands for its core where target and device name none."""
    if not options.board:
        return None
    board = find_board(options.board)
    options.target = target_of_board(board, options.target)
    if options.device:
        options.device = device_of_board(board, options.device)
    return board


def _rules(outcome: Outcome) -> dict[str, Any]:
    """Say what is this project's and what TVM's own rules made, and what that takes."""
    from shuffledeploy.deploy.actions.rule_shares import rule_shares
    from shuffledeploy.deploy.presentation.rule_table import print_rules

    manifest = outcome.bundle.manifest
    shares = None
    if manifest.kernels_by_rules and outcome.parity is not None and outcome.parity.passed:
        shares = rule_shares(outcome.bundle, outcome.device)
    print_rules(manifest, shares)
    return {
        "kernels_by_rules": {
            "share_of": shares and shares.of,
            "kernels": [
                {"name": kernel.name, "calls": kernel.calls, "operators": list(kernel.operators),
                 "share": shares and shares.shares[kernel.name]}
                for kernel in manifest.kernels_by_rules
            ],
        }
    }  # fmt: skip


def _estimate(outcome: Outcome, board: Board) -> dict[str, Any]:
    """Say how long the network is estimated to take on a board; of a wrong one nothing."""
    from shuffledeploy.deploy.presentation.run_report import board_line
    from shuffledeploy.deploy.runtime.network_estimate import estimate_bundle, on_board_json

    if outcome.parity is None or not outcome.parity.passed:
        return {}
    try:
        cycles = estimate_bundle(outcome.bundle, board)
    except (UsageError, Failure) as error:
        print(f"no estimate on {board.name}: {error}")
        return {}
    print(board_line(cycles))
    return on_board_json(cycles)


def _refuse_early(options: argparse.Namespace) -> dict[str, float]:
    """Refuse what can be told to be wrong from the command line alone.

    Returns
    -------
    dict
        What `--beside` has of other engines.

    Raises
    ------
    UsageError
        Says what is wrong and what to do.
    """
    require_search_agrees(options)
    if options.apple and options.standalone is None:
        raise UsageError("--apple goes with --standalone")
    if options.device:
        latency = options.measure_shortlist or options.score == "latency"
        device = parse_device_name(options.device)
        require_core(options.core, device)
        if device.kind == "emulated" and latency:
            raise UsageError(EMULATED_TIME.format(options.device))
    refuse_precision(options)
    if options.beside and (options.program or not options.plot):
        raise UsageError("--beside goes with --plot, for a network of the zoo")
    for path in (options.json, options.plot):
        require_creatable(path)
    if options.program:
        if not options.program.is_file():
            raise UsageError(f"there is no program at {options.program}")
        return {}
    # Its import brings PyTorch, but not TVM, which takes longer.
    from shuffledeploy.model.registry import input_shape
    from shuffledeploy.model.resolution import parse_resolution

    size = options.resolution and parse_resolution(options.resolution)
    shape = input_shape(options.model, size)
    if not options.beside:
        return {}
    from shuffledeploy.deploy.presentation.tuning_chart import peer_latencies

    return peer_latencies(options.beside, options.model, f"{shape[2]}x{shape[3]}")


def _request(run: _Run) -> Request:
    from shuffledeploy.compiler.targets import find_target
    from shuffledeploy.deploy.runtime.network_estimate import time_on
    from shuffledeploy.deploy.runtime.pictures import picture_input
    from shuffledeploy.model.resolution import parse_resolution

    options, files = run.options, run.files
    precision = FLOAT if options.precision == AUTO else options.precision
    target = find_target(options.target or ARM).computing_in(precision).on_threads(options.threads)
    if options.apple:
        target.require_apple()
    return Request(
        target=target.with_whole_layers if options.whole_layers else target,
        model=None if options.program else options.model,
        program=options.program,
        resolution=parse_resolution(options.resolution) if options.resolution else None,
        weights=files.weights,
        batch=1 if options.batch is None else options.batch,
        trials=options.trials,
        seed=options.seed,
        device=options.device,
        output=options.output,
        log_folder=options.logs,
        dump_ir=options.dump_ir,
        check=not options.no_check,
        minutes=options.minutes,
        score=options.score,
        measure_shortlist=options.measure_shortlist,
        standalone=options.standalone,
        apple=options.apple,
        normalisation=files.normalisation,
        labels=files.labels,
        calibrate=options.calibrate,
        keep_float32=tuple(options.keep_float32),
        accuracy_drop=allowed_drop(options),
        read_picture=picture_input,
        estimate_ms=time_on(run.board) if run.board else None,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("tune.py"), description=(__doc__ or "").splitlines()[0], epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _add_inputs(parser)
    add_search_options(parser)
    _add_devices(parser)
    add_output_options(parser)
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", nargs="+", metavar="TARGET",
        help=f"{ARM} ({DEFAULT_CORE}), a core, host, a TVM tag or a JSON dict; one or more"
        f" (default: the core of --board, else {ARM})")  # fmt: skip
    add("--board", metavar="BOARD", help=BOARD_HELP)
    add_precision_options(parser)
    add("--threads", type=int, default=1, metavar="N",
        help="threads that compute each kernel, a part each (default: 1)")  # fmt: skip
    add("--list-targets", action="store_true", help="show cores and boards by name and exit")
    add_network_options(parser)


def _add_devices(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--device", metavar="DEVICE",
        help="local, emulated[:CORE], adb[:SERIAL], ssh://[USER@]HOST[:PORT], rpc://HOST:PORT or"
        " tracker://HOST:PORT/KEY, which takes all boards that are free (default: local where the"
        " library fits this machine, else emulated)",
    )  # fmt: skip
    add("--core", metavar="CORE", help=CORE_HELP)


if __name__ == "__main__":
    sys.exit(main(None))
