"""The quickest of the other engines, as `peers.py` estimated them, beside networks of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.deploy.benchmark.counted_peers import COLUMNS, TUNED, UNTUNED
from shuffledeploy.deploy.benchmark.engines import ENGINES
from shuffledeploy.deploy.presentation.foreign_figures import PeerRow, PeersFile
from shuffledeploy.deploy.runtime.comparison import ComparisonRow
from shuffledeploy.deploy.runtime.defaults import ALEXNET
from shuffledeploy.model.errors import UsageError

#: By network and resolution.
Best = Mapping[tuple[str, str], PeerRow]


def best_others(peers: PeersFile, board: str) -> Best:
    """Find the engine of the least milliseconds on a board, ours left out.

    Parameters
    ----------
    peers : PeersFile
        What `peers.py --json` wrote.
    board : str
        The name of the board.

    Raises
    ------
    UsageError
        The file has no milliseconds of any other engine on that board, or is of half precision.
    """
    if peers.precision != FLOAT:
        raise UsageError(f"--peers: the file is of engines in {peers.precision}, not in {FLOAT}")
    best: dict[tuple[str, str], PeerRow] = {}
    for row in peers.rows:
        if is_ours(row) or not row.milliseconds or not row.on_board or row.on_board.board != board:
            continue
        known = best.get(place := (row.model, row.resolution))
        if known is None or row.milliseconds < known.milliseconds:
            best[place] = row
    if not best:
        raise UsageError(
            f"--peers: the file has no milliseconds of other engines on {board}: make one with"
            f" peers.py --board {board} --json FILE"
        )
    return best


def is_ours(row: PeerRow) -> bool:
    """Whether a row is of a library of this project."""
    return row.engine in (UNTUNED, TUNED)


def engine_label(row: PeerRow) -> str:
    """Name another engine, with its version."""
    engine = ENGINES.get(COLUMNS.get(row.engine, ""))
    label = engine.label if engine else row.engine
    return f"{label} {row.engine_version}" if row.engine_version else label


def best_other_sentences(rows: Sequence[ComparisonRow], best: Best) -> str:
    """Name the best other engine of each network, and AlexNet's own on it over each of ours."""
    pairs = [(row, best[row.model, row.resolution]) for row in rows
             if (row.model, row.resolution) in best]  # fmt: skip
    if not pairs:
        return ""
    named = ", ".join(f"{engine_label(other)} of {row.model}" for row, other in pairs)
    said = f" Best other engine, estimated in the same way: {named}."
    alexnet = best.get((ALEXNET, rows[0].resolution))
    ratios = ", ".join(
        f"{alexnet.milliseconds / row.value:.1f} of {row.model}"
        for row in rows if alexnet is not None and row.model != ALEXNET
    )  # fmt: skip
    return f"{said} Its AlexNet over ours: {ratios}." if ratios else said
