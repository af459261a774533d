"""Draws what `compile/validate_silicon.py` found: estimate against published time, by board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shuffledeploy.model.command_output import replaced


def draw_silicon(document: dict[str, Any], path: Path) -> None:
    """Draw estimated against measured milliseconds, a colour a board.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6), layout="constrained")
    axes = figure.subplots()
    for board in dict.fromkeys(row["board"] for row in document["rows"]):
        rows = [row for row in document["rows"] if row["board"] == board]
        measured = [row["measured_ms"] for row in rows]
        axes.scatter(measured, [row["estimated_ms"] for row in rows], s=16, label=board)
    both = [row[key] for row in document["rows"] for key in ("measured_ms", "estimated_ms")]
    ends = (min(both), max(both))
    axes.plot(ends, ends, color="grey", linewidth=0.8, zorder=0)
    axes.loglog()
    axes.set_xlabel("ms, measured by others (ncnn's benchmark table)")
    axes.set_ylabel("ms, estimated")
    axes.legend()
    with replaced(path) as beside:
        figure.savefig(beside, format=path.suffix.lstrip(".") or "png", dpi=130)
