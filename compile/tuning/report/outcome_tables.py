"""The tables that `compile/tune.py` prints at the end of a run, at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from shuffledeploy.compiler.tuning.report.history import SearchResult, gain
from shuffledeploy.compiler.tuning.report.progress_report import cells
from shuffledeploy.model.plain_console import plain_console

if TYPE_CHECKING:
    from shuffledeploy.compiler.tuning.outcome import Outcome

_MOST_KERNELS = 12


def print_outcome(outcome: Outcome) -> None:
    """Print what a run did to each kernel, or what each has where nothing was tried."""
    manifest = outcome.bundle.manifest
    title = f"{manifest.network} for {manifest.target}"
    console = plain_console()
    if outcome.search.tasks:
        console.print(f"{title}: {_summary(outcome.search)}")
        console.print(search_table(outcome.search))
    else:
        console.print(_kernels(outcome, title))
    for line in outcome.sentences():
        print(line)


def _summary(search: SearchResult) -> str:
    better = gain(search.tasks)
    whole = f"; these kernels together {better:.2f}x better" if better else ""
    return f"{search.unit} of one call{whole}"


def search_table(search: SearchResult) -> Table:
    """Set each kernel's score before the search beside that after it."""
    table = Table(box=None, pad_edge=False)
    for heading in ("kernel", "share", "before", "after", "gain", "trials"):
        table.add_column(
            heading, justify="left" if heading == "kernel" else "right", no_wrap=True
        )  # fmt: skip
    for task in search.tasks:
        table.add_row(*cells(task))
    return table


def _kernels(outcome: Outcome, title: str) -> Table:
    manifest = outcome.bundle.manifest
    table = Table(title=title, title_justify="left")
    unit = manifest.score_unit or "score"
    for heading in ("kernel", "calls", "share", unit, "record"):
        table.add_column(heading, justify="left" if heading == "kernel" else "right")
    for kernel in manifest.kernels[:_MOST_KERNELS]:
        score = f"{kernel.score:,.0f}" if kernel.score is not None else ""
        table.add_row(kernel.name, str(kernel.calls), f"{kernel.share:.1%}", score,
                      "yes" if kernel.record else "no")  # fmt: skip
    rest = manifest.kernels[_MOST_KERNELS:]
    if rest:
        share = sum(kernel.share for kernel in rest)
        table.add_row(f"{len(rest)} more", str(sum(k.calls for k in rest)), f"{share:.1%}", "", "")
    return table


def print_runs(outcomes: Sequence[Outcome]) -> None:
    """Print what became of each network for each target."""
    table = Table(box=None, pad_edge=False)
    for heading in ("network", "target", "trials", "better", "with record", "parity"):
        left = heading in ("network", "target")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for outcome in outcomes:
        manifest, parity = outcome.bundle.manifest, outcome.parity
        better = gain(outcome.search.tasks)
        table.add_row(
            manifest.network, manifest.target, str(outcome.search.trials),
            f"{better:.2f}x" if better else "",
            f"{outcome.tasks_with_record} of {outcome.tasks}",
            "" if parity is None else "holds" if parity.passed else "does not hold",
        )  # fmt: skip
    plain_console().print(table)
