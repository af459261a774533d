"""Compile and tune a network for a core, prove it right on a device, and write a bundle.

The command of this package: it parses, calls and prints. It is also the one place where the
compiler and the devices meet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from compile.targets import ARM_CORES, DEFAULT_ARM_CORE, HOST, find_target
from compile.tuning.request import Request
from compile.tuning.score import KINDS
from compile.tuning.session import Outcome, tune_network
from compile.zoo import LOG_FOLDER
from deploy.device_names import parse_device_name
from deploy.emulator.scheduling_models import describe
from deploy.reports import write_json
from deploy.tuning_devices import TuningDevices
from model.errors import UsageError, command
from model.registry import names, parse_resolution

EXAMPLES = """\
examples:
  python compile/tune.py --target arm
      ShuffleNet 0.5x (3 groups) for a Cortex-A72, checked on an emulated one
  python compile/tune.py --target cortex-a53 --program mine.pt2 --trials 500
      your own network, saved with torch.export.save(program, "mine.pt2")
  python compile/tune.py --target cortex-a76 --device tracker://127.0.0.1:9190/pi5
      tuned on a real board that registered with a TVM tracker
  python compile/tune.py --target host --model alexnet --resolution 480x640
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(argv)
    if options.list_targets:
        _print_targets()
        return 0
    request = Request(
        target=find_target(options.target),
        model=None if options.program else options.model,
        program=options.program,
        resolution=parse_resolution(options.resolution) if options.resolution else None,
        weights=options.weights,
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
    )
    if options.measure_shortlist and (options.score or options.trials or options.minutes):
        raise UsageError(
            "--measure-shortlist tunes nothing: leave out --score, --trials, --minutes"
        )
    if options.device:
        parse_device_name(options.device, default_core=request.target.cpu)
    if options.json:
        _check_writable(options.json)
    outcome = tune_network(request, TuningDevices())
    _print_outcome(outcome)
    if options.json:
        write_json(options.json, outcome.to_json())
    return 0 if outcome.parity is None or outcome.parity.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tune.py", description=(__doc__ or "").splitlines()[0], epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add(
        "--target",
        default="arm",
        metavar="TARGET",
        help=f"arm ({DEFAULT_ARM_CORE}), a core, host, a TVM tag or a JSON dict (default: arm)",
    )
    add("--list-targets", action="store_true", help="show the cores by name and exit")
    network = parser.add_mutually_exclusive_group()
    network.add_argument(
        "--model",
        default="shufflenet-g3-x0.5",
        metavar="NAME",
        help="a network of the zoo (default: %(default)s)",
    )
    network.add_argument(
        "--program",
        type=Path,
        metavar="FILE.pt2",
        help="any network: a program saved by torch.export.save",
    )
    add("--resolution", metavar="HxW", help="input size of a zoo network (default: its own)")
    add("--weights", type=Path, metavar="FILE", help="a state dict for the zoo network")
    add(
        "--trials",
        type=_count,
        metavar="N",
        help="candidates to try in all, earlier runs' included "
        "(default: 32 for each kernel without a record; 0: none)",
    )
    add("--minutes", type=_minutes, metavar="M", help="stop tuning after so long")
    add(
        "--score",
        choices=KINDS,
        help="what candidates are ranked by (default: latency on a real device, "
        "estimate on an emulated one)",
    )
    add(
        "--measure-shortlist",
        action="store_true",
        help="tune nothing: time the best few of each kernel on a real --device",
    )
    add("--seed", type=int, default=0, help="of the search (default: 0)")
    add(
        "--device",
        metavar="DEVICE",
        help="local, emulated[:CORE], rpc://HOST:PORT or tracker://HOST:PORT/KEY "
        "(default: local where the library fits this machine, else emulated)",
    )
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="the bundle's folder (default: build/bundles/NAME-TARGET)",
    )
    add(
        "--logs",
        type=Path,
        default=LOG_FOLDER,
        metavar="DIR",
        help="tuning records, a folder a target (default: tuning_logs)",
    )
    add("--dump-ir", type=Path, metavar="DIR", help="write the module after each pass here")
    add("--no-check", action="store_true", help="do not run the result on a device")
    add("--json", type=Path, metavar="FILE", help="write what came out as JSON")
    return parser  # fmt: skip


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return value


def _print_targets() -> None:
    table = Table(
        "target", "found in", "estimates by LLVM's", title="Targets by name", title_justify="left"
    )
    for name, where in ARM_CORES.items():
        table.add_row(name, where, describe(name))
    table.add_row(HOST, f"this machine: {find_target(HOST).cpu}", "")
    Console().print(table)
    print("networks: " + ", ".join(names()))


def _print_outcome(outcome: Outcome) -> None:
    manifest = outcome.bundle.manifest
    title = f"{manifest.network} for {manifest.target}"
    table = Table(title=title, title_justify="left")
    unit = manifest.score_unit or "score"
    for heading in ("kernel", "calls", "share", unit, "record"):
        table.add_column(heading, justify="left" if heading == "kernel" else "right")
    for kernel in manifest.kernels[:12]:
        score = f"{kernel.score:,.0f}" if kernel.score is not None else ""
        table.add_row(kernel.name, str(kernel.calls), f"{kernel.share:.1%}", score,
                      "yes" if kernel.record else "no")  # fmt: skip
    rest = manifest.kernels[12:]
    if rest:
        share = sum(kernel.share for kernel in rest)
        table.add_row(f"{len(rest)} more", str(sum(k.calls for k in rest)), f"{share:.1%}", "", "")
    Console().print(table)
    for line in outcome.sentences():
        print(line)


def _check_writable(path: Path) -> None:
    """Find out before the work, not after it, that a file cannot be written."""
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
        beside.unlink()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(None))
