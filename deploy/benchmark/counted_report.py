"""The table of `peers.py`, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from shuffledeploy.deploy.benchmark.counted_peers import COLUMNS, TUNED, UNTUNED
from shuffledeploy.deploy.benchmark.engines import ENGINES
from shuffledeploy.deploy.estimate.board_cycles import LEFT_OUT
from shuffledeploy.model.plain_console import plain_console

Figure = Callable[[Mapping[str, Any]], float]

_LABELS = {UNTUNED: "ours,\nuntuned", TUNED: "ours,\ntuned"}


def print_peers(document: Mapping[str, Any]) -> None:
    """Print each figure in a table of its own, a line a network, and what failed."""
    console = plain_console()
    for resolution in dict.fromkeys(row["resolution"] for row in document["rows"]):
        rows = [row for row in document["rows"] if row["resolution"] == resolution]
        for table in _tables(document, resolution, rows):
            console.print(table)
            console.print()
    _print_notes(console, document)
    for failure in document["failed"]:
        named = f"{failure['model']} {failure['resolution']}, {failure['engine']}"
        console.print(f"left out: {named}: {failure['reason']}")


def _tables(
    document: Mapping[str, Any], resolution: str, rows: list[dict[str, Any]]
) -> Iterator[Table]:
    """Give the tables of one resolution."""
    core, board = document["core"], document["board"]
    yield _table(
        f"{resolution}: instructions, millions: counted on an emulated {core}", rows,
        lambda row: row["instructions"] / 1e6,
    )  # fmt: skip
    yield _table(
        f"{resolution}: cycles of a {core}, millions, caches always hit: estimated, not measured",
        rows, lambda row: row["cycles"] / 1e6,
    )  # fmt: skip
    if board:
        yield _table(
            f"{resolution}: milliseconds on {board['name']} ({core}, {board['clock_ghz']:g} GHz):"
            " estimated, not measured", rows, lambda row: row["on_board"]["milliseconds"],
        )  # fmt: skip
    yield _table(f"{resolution}: size of the model's files, MiB", rows, lambda row: row["model_mb"])


def _print_notes(console: Console, document: Mapping[str, Any]) -> None:
    """Print how all that was counted."""
    rows = document["rows"]
    errors = [row["max_abs_error"] for row in rows]
    console.print(
        f"One warmed inference, {document['precision']}, one thread, the whole process: ours too,"
        " with TVM's runtime. Answers of all agree with PyTorch's (largest error"
        f" {max(errors, default=0):.1e}). Cycles: {document['source']};"
        " branches are always predicted."
    )
    if document["board"]:
        console.print(f"Milliseconds count memory, and leave out: {LEFT_OUT}.")
    for row in {row["engine"]: row for row in rows}.values():
        if row["engine"] not in (UNTUNED, TUNED):
            label = ENGINES[COLUMNS[row["engine"]]].label
            console.print(f"{label} {row['engine_version']}: {document['how'][row['engine']]}.")


def _table(title: str, rows: list[dict[str, Any]], figure: Figure) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    shown = [column for column in COLUMNS if any(row["engine"] == column for row in rows)]
    table.add_column("network", no_wrap=True)
    for column in shown:
        label = _LABELS.get(column) or ENGINES[COLUMNS[column]].heading
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column("best\npeer /\ntuned", justify="right", no_wrap=True)
    for model in dict.fromkeys(row["model"] for row in rows):
        values = {row["engine"]: float(figure(row)) for row in rows if row["model"] == model}
        peers = [value for name, value in values.items() if name not in (UNTUNED, TUNED)]
        ratio = f"{min(peers) / values[TUNED]:.2f}" if peers and TUNED in values else "-"
        cells = [_short(values[name]) if name in values else "-" for name in shown]
        table.add_row(model, *cells, ratio)
    return table


def _short(value: float) -> str:
    if value < 1:
        return f"{value:.2f}"
    return f"{value:.0f}" if value >= 1e3 else f"{value:.4g}"
