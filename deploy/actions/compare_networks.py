"""Networks side by side on one device, beside the paper."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.deploy.devices.device_names import (
    device_of_board,
    parse_device_name,
    require_core,
)
from shuffledeploy.deploy.devices.opening import Device
from shuffledeploy.deploy.estimate.board_cycles import LEFT_OUT
from shuffledeploy.deploy.estimate.boards import Board, find_board
from shuffledeploy.deploy.presentation.best_other_engine import (
    Best,
    best_other_sentences,
    best_others,
)
from shuffledeploy.deploy.presentation.foreign_figures import PeersFile, read_figures
from shuffledeploy.deploy.presentation.run_report import error_of_board
from shuffledeploy.deploy.runtime.comparison import (
    PAPER,
    ComparisonRow,
    cached_bundle,
    compare,
    compared_on,
    resolution_text,
)
from shuffledeploy.deploy.runtime.defaults import ALEXNET
from shuffledeploy.deploy.runtime.device_fit import check_fits, default_device
from shuffledeploy.deploy.runtime.latency import THREADS
from shuffledeploy.deploy.runtime.parity import Parity
from shuffledeploy.model.command_output import counted, steps, three_digits, write_json
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.plain_console import plain_console


def compare_networks(options: argparse.Namespace) -> int:
    """Do what the command was asked for; return its exit status."""
    board = find_board(options.board) if options.board else None
    target = find_target(options.target)
    name = device_of_board(board, options.device) if board else options.device
    name = name or default_device(target)
    require_core(options.core, parse_device_name(name))
    jobs = _jobs(options.models, options.resolution)
    others = _others(options, board)
    with steps("starting", sum(4 * len(models) for _, models in jobs)) as tell:
        # The device first: one that is not there should not cost minutes of compiling.
        with compared_on(name, target, options.core) as device:
            groups = []
            for size, models in jobs:
                bundles = []
                for model in models:
                    tell(f"{model}: compiling")
                    bundles.append(
                        cached_bundle(model, size, target, rebuild=options.rebuild, tell=tell)
                    )
                    check_fits(bundles[-1].manifest, device)
                    tell(None)
                groups.append(compare(bundles, device, tell, board))
            title = _title(device, board)
            document = _to_json(target, device, groups)
    for rows in groups:
        print_table(rows, title, others)
    if options.json is not None:
        write_json(options.json, document)
    if options.chart is not None:
        from shuffledeploy.deploy.presentation.comparison_chart import draw_chart

        draw_chart(options.chart, groups, title, PAPER)
    return 0


def _others(options: argparse.Namespace, board: Board | None) -> Best:
    """Read what other engines take on the board; nothing where no file was named."""
    if options.peers is None:
        return {}
    if board is None:
        raise UsageError("--peers has estimates of boards: name one with --board")
    return best_others(read_figures(options.peers, PeersFile, "--peers", "peers.py"), board.name)


def _jobs(
    models: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> list[tuple[tuple[int, int] | None, list[str]]]:
    """Check every network at every resolution (None: its own) before any work."""
    if len(set(models)) < len(models):
        raise UsageError("--models names a network twice")
    chosen: list[tuple[int, int] | None] = [*dict.fromkeys(sizes)] or [None]
    jobs = [(size, list(models)) for size in chosen]
    for size, _ in jobs:
        for model in models:
            resolution_text(model, size)
    return jobs


def _title(device: Device, board: Board | None) -> str:
    if board is not None:
        return (
            f"Latency estimated on {board.name}: one {board.core} at {board.clock_ghz:g} GHz,"
            " float32, batch 1"
        )
    if device.is_emulated:
        return f"Instructions counted on an emulated {device.information.cpu or 'core'}"
    core = ", ".join(filter(None, (device.information.name, device.information.cpu)))
    core = core or "core unknown"
    threads = counted(THREADS, "thread")
    return f"Latency measured on {device.name} ({core}), {threads}, float32, batch 1"


def _to_json(
    target: CompileTarget, device: Device, groups: Sequence[Sequence[ComparisonRow]]
) -> dict[str, Any]:
    return {
        "target": target.name,
        "device": {
            "name": device.name,
            "kind": parse_device_name(device.name).kind,
            "is_emulated": device.is_emulated,
            "cpu": device.information.cpu,
            "tvm_version": device.information.tvm_version,
        },
        "threads": THREADS,
        "paper": PAPER,
        "rows": [row.to_json() for rows in groups for row in rows],
    }


def print_table(rows: Sequence[ComparisonRow], title: str, others: Best) -> None:
    """Print one resolution's rows, readable at 80 columns; other engines where some are known."""
    kind = rows[0].kind
    scale = 1e6 if kind == "counted" else 1.0
    table = Table(
        title=f"{title}\n{', '.join(dict.fromkeys(row.resolution for row in rows))}",
        caption=_caption(rows) + best_other_sentences(rows, others), caption_justify="left",
        title_justify="left",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("network", no_wrap=True)
    figure = {"measured": "median\nms", "estimated": "ms,\nestimated"}
    headings = ["mult-\nadds, M", figure.get(kind, "instruc-\ntions, M")]
    headings += ["p10-p90\nms"] if kind == "measured" else []
    headings += ["from\nmemory"] if kind == "estimated" else []
    headings += ["best\nother, ms"] if others else []
    headings += ["AlexNet\nover it", "paper's\nms", "paper's\nratio"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [f"{row.multiply_adds / 1e6:.1f}", three_digits(row.value / scale)]
        if row.spread is not None:
            cells.append(f"{three_digits(row.spread['p10'])}-{three_digits(row.spread['p90'])}")
        if row.on_board is not None:
            cells.append(f"{row.on_board.cycles.memory / row.on_board.total:.0%}")
        if others:
            other = others.get((row.model, row.resolution))
            cells.append("-" if other is None else three_digits(other.milliseconds))
        cells += [_ratio(row.ratio_to_alexnet), _paper(row.paper_ms), _ratio(row.paper_ratio)]
        table.add_row(row.model, *cells)
    console = plain_console()
    console.print(table)
    console.print()


def _caption(rows: Sequence[ComparisonRow]) -> str:
    """Say what the columns are, and the kind of each figure."""
    parities: list[Parity] = [row.parity for row in rows]
    no_alexnet = "" if rows[0].ratio_to_alexnet else f" No ratio: {ALEXNET} is not compared."
    # A ratio is only fair where both networks were tuned alike.
    tuned = ", ".join(f"{row.kernels_with_record}/{row.kernels} {row.model}" for row in rows)
    return (
        f"{_what(rows)}{_states(rows)}{no_alexnet} Kernels with a tuning record: {tuned}."
        " Multiply-adds: those of the kernels, from shapes: fewer than the layers' where a kernel"
        " goes Winograd's or Strassen's way. Parity with PyTorch on this device"
        f" holds for all: {min(p.cases for p in parities)} inputs each, largest error"
        f" {max(p.max_abs_error for p in parities):.1e}, tolerance {parities[0].tolerance:.0e}."
        f" Paper, measured: {PAPER}."
    )


def _what(rows: Sequence[ComparisonRow]) -> str:
    """Say what kind of figure stands in the table."""
    if rows[0].kind == "measured":
        runs = min(int(row.spread["runs"]) for row in rows if row.spread)
        return f"ms: measured, {runs} runs of each, in turns."
    if rows[0].kind == "estimated":
        return (
            "ms: estimated, from what one warmed inference executes and misses on an emulated core;"
            f" left out: {LEFT_OUT}. From memory: the part of it that waits for the board's memory."
            f" {error_of_board(rows[0].on_board.board) if rows[0].on_board else ''}"
        )
    return "Instructions: counted in the library, of one warmed inference; not a time."


def _states(rows: Sequence[ComparisonRow]) -> str:
    """Say on which cores, at which clocks the networks ran, where the device tells that."""
    told = {str(row.processor): row.model for row in reversed(rows) if row.processor}
    texts = [text for text in reversed(told) if text]
    if len(texts) == 1:
        return f" All: {texts[0]}."
    return " " + "; ".join(f"{told[text]}: {text}" for text in texts) + "." if texts else ""


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}x"


def _paper(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
