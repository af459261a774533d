"""Look after tuning records: what they cover, what no longer fits, two logs into one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from shuffledeploy.compiler.cores import CORES, DEFAULT_CORE
from shuffledeploy.compiler.ir.memory_layout import FLOAT, PRECISIONS
from shuffledeploy.compiler.tuning.records.log_upkeep import find_log, merge, prune
from shuffledeploy.compiler.tuning.records.record_log import SHORTLIST, Log, log_path, read_log
from shuffledeploy.compiler.tuning.request import LOG_FOLDER
from shuffledeploy.model.errors import FAILURE_STATUS, command, program_name
from shuffledeploy.model.plain_console import plain_console

if TYPE_CHECKING:
    from shuffledeploy.compiler.tuning.records.record import Record
    from shuffledeploy.compiler.tuning.report.coverage import KnownKernel, TaskCoverage

_LINE = "{:<42.42} {:>14} {:>6}  {:<10} {}"

EXAMPLES = """\
examples:
  python compile/logs.py show --target arm
  python compile/logs.py show --target arm --model shufflenet-g3-x1
  python compile/logs.py check --target arm --model shufflenet-g3-x1   (status 1 if a task has none)
  python compile/logs.py prune --target arm --dry-run
      names the records that fit no network of the zoo; without --dry-run they go. Records of your
      own networks stay with --program FILE.pt2, of other input sizes with --resolution HxW
  python compile/logs.py merge tuning_logs/cortex-a72 elsewhere/cortex-a72
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(argv)
    if options.action == "merge":
        into, other = find_log(options.into), find_log(options.other)
        print(f"{into}: {merge(into, other)} records")
        return 0
    name = _target_name(options.target, options.logs)
    path = log_path(options.logs, name, options.threads)
    if options.action == "show" and not (options.model or options.program):
        _print_log(path)
        return 0
    from shuffledeploy.compiler.tuning.report.coverage import covered

    log = read_log(path)
    kernels = _kernels(options)
    if options.action == "prune":
        return _prune(options, path, log, kernels)
    rows = covered(kernels, log)
    if options.action == "show":
        _print_rows(rows, path)
    return _report_gaps(rows, log, path, status=options.action == "check")


def _target_name(text: str, logs: Path) -> str:
    """Name a target's folder; TVM is asked only where the name alone does not tell."""
    if text == "arm":
        return DEFAULT_CORE
    if text in CORES or (Path(text).name == text and log_path(logs, text).exists()):
        return text
    from shuffledeploy.compiler.targets import find_target

    return find_target(text).name


def _kernels(options: argparse.Namespace) -> dict[str, KnownKernel]:
    from shuffledeploy.compiler.targets import find_target
    from shuffledeploy.compiler.tuning.report.coverage import known_kernels
    from shuffledeploy.model.registry import REPRESENTATIVE, names
    from shuffledeploy.model.resolution import parse_resolution

    everything = names() if options.action == "prune" else REPRESENTATIVE
    models = options.model or (() if options.program else everything)
    sizes = [None, *(parse_resolution(text) for text in options.resolution)]
    console = plain_console(stderr=True)
    with console.status("") as status:

        def tell(what: str) -> None:
            status.update(what)
            if not console.is_terminal:
                console.print(what)

        target = find_target(options.target)
        if options.action != "prune":
            targets = [target.computing_in(options.precision)]
        else:
            targets = target.in_each_precision
        kernels: dict[str, KnownKernel] = {}
        for one in targets:
            kernels |= known_kernels(one, models, options.program, sizes, tell)
        return kernels


def _print_log(path: Path) -> None:
    """Show what a log holds, kernel by kernel, at 80 columns."""
    log = read_log(path)
    if not log.shortlists and not log.rejected:
        print(f"no records in {path}")
        return
    records = sorted(log.preferred.values(), key=lambda record: (record.kernel, record.key))
    numbers = _source_numbers(records)
    # Lines by hand: a table of a thousand rows takes longer to lay out than to read.
    print(_LINE.format("kernel", "score", "trials", "when", "by"))
    for record in records:
        by = f"({numbers[record.source, record.unit]})"
        score = f"{record.score:,.0f}"
        print(_LINE.format(record.kernel, score, record.trials, record.date, by))
    _print_sources(numbers)
    for sentence in log.rejected:
        print(f"not used: {sentence}")
    print(f"{len(records)} kernels in {path}")


def _source_numbers(records: Iterable[Record]) -> dict[tuple[str, str], int]:
    """Give each source and unit of scores a number, for the rows of a table and its legend."""
    sources = sorted({(record.source, record.unit) for record in records})
    return {source: number for number, source in enumerate(sources, start=1)}


def _print_sources(numbers: Mapping[tuple[str, str], int]) -> None:
    for (source, unit), number in numbers.items():
        print(f"({number}) {unit}, {source}")


def _report_gaps(rows: list[TaskCoverage], log: Log, path: Path, *, status: bool) -> int:
    """Name what has no record and what could not be read."""
    missing = [row for row in rows if row.record is None]
    for row in missing:
        print(f"no record: {row.kernel.name} ({row.weight:.1%} of {_networks(row.kernel)})")
    for sentence in log.rejected:
        print(f"not used: {sentence}")
    from shuffledeploy.compiler.tuning.report.coverage import unfit

    kernels = {row.kernel.key: row.kernel for row in rows}
    stale = [pair for pair in unfit(kernels, log) if pair[0].key in kernels]
    for record, reason in stale:
        print(f"does not fit: {record.kernel} ({record.key}): {reason}")
    print(f"{len(rows) - len(missing)} of {len(rows)} tasks have a record in {path}")
    return FAILURE_STATUS if status and (missing or stale) else 0


def _prune(
    options: argparse.Namespace, path: Path, log: Log, kernels: Mapping[str, KnownKernel]
) -> int:
    path = find_log(path)
    from shuffledeploy.compiler.tuning.report.coverage import unfit

    drop = unfit(kernels, log)
    for record, reason in drop:
        print(f"{record.kernel} ({record.key}, {record.score:g} {record.unit}): {reason}")
    for sentence in log.rejected:
        print(f"cannot be used: {sentence}")
    if options.dry_run:
        print(f"{len(drop)} records and {len(log.rejected)} lines would go from {path}")
    else:
        kept = prune(path, [record for record, _ in drop], options.shortlist)
        print(f"{path}: {kept} records kept")
    return 0


def _networks(kernel: KnownKernel) -> str:
    first, *rest = kernel.calls
    return f"{first} and {len(rest)} more" if rest else first


def _print_rows(rows: list[TaskCoverage], path: Path) -> None:
    table = Table(title=str(path), title_justify="left")
    for heading in ("kernel", "weight", "best", "trials", "when", "with", "network"):
        right = heading in ("weight", "best", "trials")
        table.add_column(
            heading, justify="right" if right else "left",
            no_wrap=heading != "network", min_width=26 if heading == "kernel" else None,
        )  # fmt: skip
    numbers = _source_numbers(row.record for row in rows if row.record is not None)
    for row in rows:
        record = row.record
        known = ("", "", "", "") if record is None else (
            f"{record.score:,.0f}", str(record.trials), record.date,
            f"({numbers[record.source, record.unit]})",
        )  # fmt: skip
        table.add_row(row.kernel.name, f"{row.weight:.1%}", *known, _networks(row.kernel))
    plain_console().print(table)
    _print_sources(numbers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("logs.py"), description=(__doc__ or "").splitlines()[0], epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", required=True)
    for name, what in (
        ("show", "what a log holds: kernel, score, trials, when, by what; of --model, its tasks"),
        ("check", "name the tasks without a record; status 1 if there are any"),
        ("prune", "name and remove records that no network can use"),
    ):
        action = actions.add_parser(name, help=what, description=what)
        add = action.add_argument
        add("--target", default="arm", metavar="TARGET", help="as of tune.py (default: arm)")
        default = {"prune": "all", "check": "those that comparisons show", "show": "none"}[name]
        add("--model", action="append", default=[], metavar="NAME",
            help=f"a network of the zoo; may be repeated (default: {default})")  # fmt: skip
        add("--program", action="append", default=[], type=Path, metavar="FILE.pt2",
            help="a saved program; may be repeated")  # fmt: skip
        add("--resolution", action="append", default=[], metavar="HxW",
            help="also at this input size; may be repeated")  # fmt: skip
        add("--logs", type=Path, default=LOG_FOLDER, metavar="DIR", help="default: tuning_logs")
        add("--threads", type=int, default=1, metavar="N",
            help="records of networks of so many threads (default: %(default)s)")  # fmt: skip
        if name != "prune":
            add("--precision", choices=list(PRECISIONS), default=FLOAT,
                help="that networks compute in (default: %(default)s; prune: all)")  # fmt: skip
        if name == "prune":
            add("--dry-run", action="store_true", help="change nothing")
            add("--shortlist", type=int, choices=range(1, SHORTLIST + 1), default=SHORTLIST,
                metavar="N", help="most records to keep of a kernel (default: %(default)s)",
            )  # fmt: skip
    action = actions.add_parser("merge", help="add the records of a log to another of its kind")
    action.add_argument("into", type=Path, metavar="A", help="a target's folder: takes the records")
    action.add_argument("other", type=Path, metavar="B", help="a folder of the same target")
    return parser


if __name__ == "__main__":
    sys.exit(main(None))
