"""Runs networks, reads what other commands found, and writes one page about all of it."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path

from shuffledeploy.compiler.bundle.folder import Bundle, load_bundle, size_text
from shuffledeploy.deploy.devices.device_names import require_core
from shuffledeploy.deploy.estimate.boards import Board, find_board
from shuffledeploy.deploy.estimate.silicon_errors import known_errors
from shuffledeploy.deploy.presentation.foreign_figures import (
    BoardErrors,
    Comparison,
    PeersFile,
    SiliconFile,
    read_figures,
)
from shuffledeploy.deploy.report_page.chapters import (
    comparison_chapter,
    network_chapter,
    subtitle,
)
from shuffledeploy.deploy.report_page.rendering import Page, render
from shuffledeploy.deploy.report_page.side_by_side import compare_runs
from shuffledeploy.deploy.report_page.speed_facts import KnownError
from shuffledeploy.deploy.runtime.device_fit import fitting_device
from shuffledeploy.deploy.runtime.observed_run import observe
from shuffledeploy.model.command_output import replaced, steps
from shuffledeploy.model.errors import UsageError

_MANY = 3
_ONE_BY_ONE = "Each network was run by itself, one after the other."


def write_report(options: argparse.Namespace) -> int:
    """Do what the command was asked for; return its exit status."""
    bundles, boards = _bundles(options.bundle), _boards(options.board)
    peers = _peers(options.peers)
    compared = [_comparison(path) for path in options.compare]
    known = _errors(options.silicon)
    for bundle in bundles:
        require_core(options.core, fitting_device(bundle.manifest, options.device))
    runs = []
    with steps("starting", len(bundles)) as tell:
        for bundle in bundles:
            runs.append(observe(bundle, options.device, options.core, boards, tell))
            tell(None)
    chapters = [
        network_chapter(bundle, run, peers, compared, known)
        for bundle, run in zip(bundles, runs, strict=True)
    ]
    together = compare_runs([bundle.manifest for bundle in bundles], runs)
    chapters += [comparison_chapter(found, (_ONE_BY_ONE,)) for found in together]
    chapters += [comparison_chapter(found) for found in compared]
    made = datetime.date.today().isoformat()
    text = render(Page(_title(bundles), made, chapters))
    with replaced(options.output) as beside:
        beside.write_text(text, encoding="utf-8")
    print(f"{options.output}: {_title(bundles)}, {size_text(len(text.encode()))}")
    return 0


def _bundles(paths: Sequence[Path]) -> list[Bundle]:
    """Load bundles, each of another network, size or target.

    Raises
    ------
    UsageError
        One is no bundle or broken, or two tell of the same.
    """
    known: dict[tuple[str, str], Path] = {}
    bundles = [load_bundle(path) for path in paths]
    for bundle in bundles:
        manifest = bundle.manifest
        same = known.setdefault((manifest.network, subtitle(manifest)), bundle.path)
        if same is not bundle.path:
            raise UsageError(
                f"{same} and {bundle.path} are both {manifest.network}, {subtitle(manifest)}: a"
                " reader could not tell them apart, so leave one out"
            )
    return bundles


def _boards(names: Sequence[str]) -> list[Board]:
    """Find boards by their names.

    Raises
    ------
    UsageError
        There is no such board, or two have one name.
    """
    boards = [find_board(name) for name in names]
    if len({board.name for board in boards}) < len(boards):
        raise UsageError("--board names a board twice")
    return boards


def _peers(path: Path | None) -> PeersFile | None:
    return None if path is None else read_figures(path, PeersFile, "--peers", "peers.py")


def _comparison(path: Path) -> Comparison:
    return read_figures(path, Comparison, "--compare", "compare.py")


def _errors(path: Path | None) -> KnownError:
    """Tell errors of boards from a file, else what is known of them."""
    if path is None:
        return _known_error
    return read_figures(path, SiliconFile, "--silicon", "validate_silicon.py").boards.get


def _known_error(board: str) -> BoardErrors | None:
    known = known_errors(board)
    if known is None:
        return None
    found = known.errors
    return BoardErrors(found.networks, found.median_error, found.largest_error, known.blind)


def _title(bundles: Sequence[Bundle]) -> str:
    names = list(dict.fromkeys(bundle.manifest.network for bundle in bundles))
    return ", ".join(names) if len(names) <= _MANY else f"{len(names)} networks"
