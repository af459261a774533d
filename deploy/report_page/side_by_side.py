"""Networks of one report beside each other: those of one target, at one place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.deploy.presentation.foreign_figures import (
    ComparedDevice,
    ComparedRow,
    Comparison,
    OnBoard,
)
from shuffledeploy.deploy.report_page.speed_facts import paper_ms, resolution_of, zoo_name
from shuffledeploy.deploy.runtime.comparison import PAPER
from shuffledeploy.deploy.runtime.defaults import ALEXNET
from shuffledeploy.deploy.runtime.latency import Latency
from shuffledeploy.deploy.runtime.observed_run import ObservedRun


@dataclass(frozen=True)
class _Place:
    """What the networks of one comparison share: target, device, its core, the board if any."""

    target: str
    device: str
    core: str
    board: str | None


def compare_runs(manifests: Sequence[Manifest], runs: Sequence[ObservedRun]) -> list[Comparison]:
    """Set the networks of a report beside each other, where several were timed at one place.

    Parameters
    ----------
    manifests, runs : sequence of Manifest, sequence of ObservedRun
        The networks, and what came of each.
    """
    places: defaultdict[_Place, list[ComparedRow]] = defaultdict(list)
    for manifest, run in zip(manifests, runs, strict=True):
        for place, row in _rows(manifest, run):
            places[place].append(row)
    return [
        Comparison(
            place.target,
            ComparedDevice(place.device, place.core, is_emulated=place.board is not None),
            PAPER, tuple(_beside_alexnet(row, rows) for row in rows),
        )
        for place, rows in places.items() if len(rows) > 1
    ]  # fmt: skip


def _rows(manifest: Manifest, run: ObservedRun) -> Iterator[tuple[_Place, ComparedRow]]:
    """Give a network's times, each with its place; networks that take no image have none."""
    resolution = resolution_of(manifest)
    if resolution is None:
        return
    # Only a network of the zoo is what its name says.
    name = zoo_name(manifest) or f"{manifest.network} (a program)"
    paper = paper_ms(manifest)
    if isinstance(run.figure, Latency):
        took = run.figure.median_ms
        row = ComparedRow(name, resolution, "measured", took, "ms", None, paper, None)
        yield _Place(manifest.target, run.device, run.core, None), row
    for estimate in run.boards:
        if estimate.cycles is not None:
            board, took = estimate.board, estimate.cycles.milliseconds
            row = ComparedRow(
                name, resolution, "estimated", took, "ms", None, paper, None,
                OnBoard(board.name, board.clock_ghz),
            )  # fmt: skip
            yield _Place(manifest.target, run.device, board.core, board.name), row


def _beside_alexnet(row: ComparedRow, rows: Sequence[ComparedRow]) -> ComparedRow:
    """Add how many times less than AlexNet of that size a network takes, here and in the paper."""
    for other in rows:
        if (other.model, other.resolution) == (ALEXNET, row.resolution):
            papers = other.paper_ms / row.paper_ms if other.paper_ms and row.paper_ms else None
            ratio = other.value / row.value
            return msgspec.structs.replace(row, ratio_to_alexnet=ratio, paper_ratio=papers)
    return row
