"""Is the estimate of milliseconds right? ncnn's networks estimated, beside times of others."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from shuffledeploy.deploy.benchmark.ncnn_networks import (
    INPUTS,
    count_network,
    find_parameters,
    release_of,
    require_parameters,
)
from shuffledeploy.deploy.estimate.board_cycles import LEFT_OUT, cycles_on
from shuffledeploy.deploy.estimate.boards import BOARDS, find_board
from shuffledeploy.deploy.estimate.cycle_model import CycleModel
from shuffledeploy.deploy.estimate.published_times import PublishedTime, published_times
from shuffledeploy.deploy.estimate.silicon_errors import (
    KnownErrors,
    keep_errors,
    silicon_errors,
)
from shuffledeploy.deploy.presentation.silicon_chart import draw_silicon
from shuffledeploy.model.command_output import steps, write_json
from shuffledeploy.model.errors import FAILURE_STATUS, Failure, UsageError
from shuffledeploy.model.plain_console import plain_console

# Boards from whose times a constant may be chosen; the others stay a blind test.
LOOKED_AT = ("raspberry-pi-4", "rk3399-big", "rk3399-little", "raspberry-pi-3b+", "raspberry-pi-5")
_WORKERS = 2

Tell = Callable[[str | None], None]


def prove_silicon(options: argparse.Namespace) -> int:
    """Do what the command was asked for; return its exit status."""
    require_parameters(options.params)
    rows = choose_rows(published_times(), options.board, options.network)
    with steps("starting", len(rows)) as tell:
        document = estimate_rows(rows, options.params, tell)
    _print(document)
    if options.keep and not document["failed"]:
        keep_errors(errors_of(document["rows"]))
    if options.json is not None:
        write_json(options.json, document)
    if options.chart is not None and document["rows"]:
        draw_silicon(document, options.chart)
    return FAILURE_STATUS if document["failed"] else 0


def choose_rows(
    rows: Sequence[PublishedTime], boards: Sequence[str], networks: Sequence[str]
) -> list[PublishedTime]:
    """Take the rows of some boards and networks; of none named, all.

    Raises
    ------
    UsageError
        A board or a network that there is not.
    """
    for name in boards:
        if find_board(name).name not in {row.board for row in rows}:
            raise UsageError(f"no times of {name} were published here: take {', '.join(BOARDS)}")
    for name in networks:
        if name not in INPUTS:
            raise UsageError(f"ncnn's benchmark has no '{name}': take {', '.join(INPUTS)}")
    return [row for row in rows if (not boards or row.board in boards)
            and (not networks or row.network in networks)]  # fmt: skip


def estimate_rows(rows: Sequence[PublishedTime], folder: Path, tell: Tell) -> dict[str, Any]:
    """Estimate what was measured.

    Returns
    -------
    dict
        ``kind``, ``leaves_out``, ``boards`` by name (`SiliconErrors`, and ``blind``),
        ``rows``, ``left_out``, ``failed``.
    """
    cores = dict.fromkeys(BOARDS[row.board].core for row in rows)
    models = {core: CycleModel("aarch64", core, _WORKERS) for core in cores}
    estimated: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    for row in rows:
        named = {"board": row.board, "network": row.network}
        parameters = find_parameters(folder, row.network)
        if row.left_out or parameters is None:
            reason = row.left_out or f"{folder} has no {row.network}.param"
            left_out.append({**named, "reason": reason})
        else:
            tell(f"{row.network} on {row.board}")
            try:
                model = models[BOARDS[row.board].core]
                estimated.append({**named, **_estimate(row, parameters, model)})
            except Failure as error:
                failed.append({**named, "reason": str(error)})
        tell(None)
    return {
        "kind": "estimated, against times that others measured",
        "sources": {core: model.source for core, model in models.items()},
        "leaves_out": LEFT_OUT, "boards": summarise(estimated), "rows": estimated,
        "left_out": left_out, "failed": failed,
    }  # fmt: skip


def _estimate(row: PublishedTime, parameters: Path, model: CycleModel) -> dict[str, Any]:
    board = BOARDS[row.board]
    wheel = release_of(row.date)
    counted = count_network(parameters, INPUTS[row.network], board, model, wheel)
    cycles = cycles_on(board, counted.pieces)
    return {
        "measured_ms": row.least_ms, "estimated_ms": cycles.milliseconds,
        "ratio": cycles.milliseconds / row.least_ms, "date": row.date, "commit": row.commit,
        "source_line": row.source_line, "wheel": wheel, "instructions": counted.instructions,
        **cycles.cycles._asdict(),
    }  # fmt: skip


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Work out each board's statistics; a board of one network has none."""
    return {name: known.to_json() for name, known in errors_of(rows).items()}


def errors_of(rows: Sequence[dict[str, Any]]) -> dict[str, KnownErrors]:
    """Work out how far each board's estimates are from its times."""
    found: dict[str, KnownErrors] = {}
    for name in dict.fromkeys(row["board"] for row in rows):
        own = [row for row in rows if row["board"] == name]
        errors = silicon_errors(
            [row["estimated_ms"] for row in own], [row["measured_ms"] for row in own]
        )
        if errors is not None:
            found[name] = KnownErrors(errors, name not in LOOKED_AT)
    return found


def _print(document: dict[str, Any]) -> None:
    console = plain_console()
    console.print(_network_table(document["rows"]))
    console.print()
    console.print(_board_table(document["boards"]))
    console.print(
        "Estimated, ncnn of about the time of each row on emulated cores, against the least of"
        f" several runs that others measured. Left out of the estimate: {document['leaves_out']}."
    )
    reasons = {(row["board"], row["reason"]) for row in document["left_out"]}
    for board, reason in sorted(reasons):
        names = [row["network"] for row in document["left_out"]
                 if (row["board"], row["reason"]) == (board, reason)]  # fmt: skip
        console.print(f"left out, {board}: {', '.join(names)}: {reason}")
    for row in document["failed"]:
        console.print(f"failed, {row['board']}: {row['network']}: {row['reason']}")


def _network_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Give estimate over measured, a line a network and a column a board."""
    boards = list(dict.fromkeys(row["board"] for row in rows))
    table = _table("Milliseconds, estimated / measured")
    table.add_column("network", no_wrap=True)
    for board in boards:
        table.add_column(board.replace("-", " "), justify="right")
    ratios = {(row["network"], row["board"]): f"{row['ratio']:.2f}" for row in rows}
    for network in (name for name in INPUTS if any(row["network"] == name for row in rows)):
        table.add_row(network, *(ratios.get((network, board), "-") for board in boards))
    return table


def _board_table(boards: dict[str, dict[str, Any]]) -> Table:
    table = _table("By board")
    table.add_column("board", no_wrap=True)
    for heading in ("networks", "mean ratio", "median error", "largest error", "spread", "rank"):
        table.add_column(heading, justify="right")
    for name, found in boards.items():
        table.add_row(
            f"{name} (blind)" if found["blind"] else name, str(found["networks"]),
            f"{found['ratio_mean']:.2f}", f"{found['median_error']:.1%}",
            f"{found['largest_error']:.0%}", f"{found['spread']:.3f}",
            f"{found['rank_correlation']:.3f}",
        )  # fmt: skip
    return table


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
