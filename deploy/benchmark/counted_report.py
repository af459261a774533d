"""The table of `peers.py`, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from shuffledeploy.deploy.benchmark.counted_peers import COLUMNS, TUNED, UNTUNED
from shuffledeploy.deploy.benchmark.engines import ENGINES
from shuffledeploy.model.plain_console import plain_console

_LABELS = {UNTUNED: "ours,\nuntuned", TUNED: "ours,\ntuned"}


def print_peers(document: Mapping[str, Any]) -> None:
    """Print instructions and cycles, a line a network each, and what failed."""
    console = plain_console()
    core, rows = document["core"], document["rows"]
    for title, figure in (
        (f"Instructions, millions: counted on an emulated {core}", "instructions"),
        (f"Cycles of a {core}, millions: estimated, not measured", "cycles"),
    ):
        console.print(_table(title, figure, rows))
        console.print()
    versions = {
        ENGINES[COLUMNS[row["engine"]]].label: row["engine_version"]
        for row in rows
        if row["engine"] not in (UNTUNED, TUNED)
    }
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    errors = [row["max_abs_error"] for row in rows]
    console.print(
        "One warmed inference at 224x224, float32, one thread, the whole process: ours too, with"
        f" TVM's runtime. {said}{'. ' if said else ''}Answers of all agree with PyTorch's"
        f" (largest error {max(errors, default=0):.1e}). Cycles: {document['source']};"
        " caches always hit, branches are always predicted."
    )
    for failure in document["failed"]:
        console.print(f"{failure['model']}, {failure['engine']}: {failure['reason']}")


def _table(title: str, figure: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    shown = [column for column in COLUMNS if any(row["engine"] == column for row in rows)]
    table.add_column("network", no_wrap=True)
    for column in shown:
        label = _LABELS.get(column) or ENGINES[COLUMNS[column]].label.replace(" ", "\n")
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column("best peer\n/ tuned", justify="right", no_wrap=True)
    for model in dict.fromkeys(row["model"] for row in rows):
        values = {row["engine"]: float(row[figure]) for row in rows if row["model"] == model}
        peers = [value for name, value in values.items() if name not in (UNTUNED, TUNED)]
        ratio = f"{min(peers) / values[TUNED]:.2f}" if peers and TUNED in values else "-"
        cells = [_millions(values[name]) if name in values else "-" for name in shown]
        table.add_row(model, *cells, ratio)
    return table


def _millions(value: float) -> str:
    return f"{value / 1e6:.0f}" if value >= 1e9 else f"{value / 1e6:.4g}"
