"""A network on other engines, as `peers.py` counted it."""

from __future__ import annotations

from collections.abc import Sequence

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.deploy.benchmark.counted_peers import TUNED, UNTUNED
from shuffledeploy.deploy.presentation.best_other_engine import engine_label, is_ours
from shuffledeploy.deploy.presentation.foreign_figures import PeerRow, PeersFile
from shuffledeploy.deploy.report_page.figures import Bar, BarPicture, Section
from shuffledeploy.deploy.report_page.network_facts import millions
from shuffledeploy.deploy.report_page.speed_facts import resolution_of, zoo_name
from shuffledeploy.model.command_output import three_digits

_OURS = {UNTUNED: "this project, untuned", TUNED: "this project, tuned"}
_NOT_TOLD = "-"


def engine_section(manifest: Manifest, peers: PeersFile | None) -> Section | None:
    """Set a network beside itself on other engines; None where none was counted alike."""
    if peers is None:
        return None
    if (peers.core, peers.precision) != (manifest.cpu, manifest.precision):
        return None
    rows = [row for row in peers.rows if row.model == zoo_name(manifest)
            and row.resolution == resolution_of(manifest)]  # fmt: skip
    if not rows:
        return None
    columns, cells = _table(rows)
    notes = [
        f"One warmed inference of the whole process on an emulated {peers.core},"
        f" {peers.precision}, one thread. Cycles: {peers.source}; caches hit, branches predicted."
    ]
    if any(row.milliseconds for row in rows):
        notes.append("Milliseconds count memory too.")
    hows = dict.fromkeys(f"{_label(row)}: {row.how}." for row in rows if row.how)
    return Section(
        "Beside other engines", (), _picture(rows, peers.core), columns, cells,
        notes=(*notes, *hows),
    )  # fmt: skip


def _table(rows: Sequence[PeerRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Give headings and cells; a column of which no row tells is left out."""
    boards = dict.fromkeys(str(row.on_board) for row in rows if row.on_board)
    columns = {
        "engine": [_label(row) for row in rows],
        "instructions, counted": [millions(row.instructions) for row in rows],
        "cycles, estimated": [millions(row.cycles) for row in rows],
        f"{', '.join(boards)}, estimated": [_time(row) for row in rows],
        "model, counted": [_size(row) for row in rows],
    }
    told = {name: cells for name, cells in columns.items() if set(cells) != {_NOT_TOLD}}
    return tuple(told), list(zip(*told.values(), strict=True))


def _picture(rows: Sequence[PeerRow], core: str) -> BarPicture:
    """Draw milliseconds where all engines have them on one board, else cycles."""
    boards = {str(row.on_board) for row in rows}
    if len(boards) == 1 and all(row.milliseconds for row in rows):
        bars = [_bar(row, row.milliseconds, _time(row)) for row in rows]
        return BarPicture(f"Milliseconds of one inference on a {boards.pop()}", tuple(bars))
    bars = [_bar(row, row.cycles, millions(row.cycles)) for row in rows]
    return BarPicture(f"Cycles of one inference on a {core}", tuple(bars))


def _bar(row: PeerRow, value: float, text: str) -> Bar:
    return Bar(_label(row), value, text, "estimated", "ours" if is_ours(row) else "peer")


def _time(row: PeerRow) -> str:
    took = row.milliseconds
    return f"{three_digits(took)} ms" if took else _NOT_TOLD


def _size(row: PeerRow) -> str:
    return _NOT_TOLD if row.model_mb is None else f"{three_digits(row.model_mb)} MiB"


def _label(row: PeerRow) -> str:
    if row.engine in _OURS:
        return _OURS[row.engine]
    return engine_label(row)
