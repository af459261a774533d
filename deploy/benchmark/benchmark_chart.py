"""The document as a picture: how long each engine takes beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from shuffledeploy.deploy.benchmark.document import noisy_places
from shuffledeploy.deploy.benchmark.engines import ENGINES, OURS, STANDALONE
from shuffledeploy.model.command_output import replaced
from shuffledeploy.model.registry import UNSHUFFLED

COLORS = {OURS: "#1f6f8b", STANDALONE: "#63a3b8",
          "onnxruntime": "#d9a441", "openvino": "#b5838d", "ncnn": "#7a9e7e",
          "mnn": "#8d86c9", "litert": "#c97b63", "executorch": "#a8a24a"}  # fmt: skip
INK, FAINT = "#222222", "#8a8a8a"
_STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.edgecolor": FAINT,
    "axes.labelcolor": INK, "xtick.color": FAINT, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
}  # fmt: skip
_COLUMNS = 3


def draw_chart(path: Path, document: Mapping[str, Any]) -> None:
    """Draw a PNG, one panel a network and resolution, written beside and renamed.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    rows = [r for r in document["rows"] if not r["model"].endswith(UNSHUFFLED)]
    places = list(dict.fromkeys((r["model"], r["resolution"], r["threads"]) for r in rows))
    lines = -(-len(places) // _COLUMNS)
    columns = min(_COLUMNS, len(places))
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(
            lines, columns, figsize=(4.2 * columns, 0.8 + 2.1 * lines), squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for panel in axes.flat[len(places) :]:
            panel.set_visible(False)
        for panel, place in zip(axes.flat, places, strict=False):
            _draw(panel, place, [r for r in rows if _place(r) == place])
            if place in noisy_places(document):
                panel.set_title(panel.get_title(loc="left") + " *", fontsize=10, loc="left")
        noisy = "; *: too noisy to tell" if document["noisy"] else ""
        figure.suptitle(
            f"One inference, ms: median, p10 to p90 (measured, float32, batch 1{noisy})",
            fontsize=12, fontweight="bold", x=0.01, ha="left",
        )  # fmt: skip
        figure.supxlabel(document["machine"]["cpu"], fontsize=8, color=FAINT, x=0.01, ha="left")
        try:
            with replaced(path) as beside:
                figure.savefig(beside, format="png", dpi=150)
        finally:
            plt.close(figure)


def _place(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["model"], row["resolution"], row["threads"]


def _draw(axes: Any, place: tuple[str, str, int], rows: list[Mapping[str, Any]]) -> None:
    """Draw one network at one resolution, the quickest engine on top."""
    rows = sorted(rows, key=lambda row: row["median_ms"])
    for position, row in enumerate(rows):
        is_ours = row["engine"] == OURS
        axes.barh(position, row["median_ms"], height=0.6, color=COLORS[row["engine"]])
        axes.plot([row["p10_ms"], row["p90_ms"]], [position, position], color=INK, linewidth=1,
                  marker="|", markersize=5)  # fmt: skip
        end = max(row["median_ms"], row["p90_ms"])
        axes.annotate(
            f"{row['median_ms']:.3g}", (end, position), xytext=(5, 0), va="center",
            textcoords="offset points", fontweight="bold" if is_ours else "normal",
        )  # fmt: skip
    labels = [ENGINES[row["engine"]].label for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row["engine"] == OURS else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, max(max(r["p90_ms"], r["median_ms"]) for r in rows) * 1.2)
    axes.tick_params(axis="y", length=0)
    model, resolution, threads = place
    count = "1 thread" if threads == 1 else f"{threads} threads"
    axes.set_title(f"{model}, {resolution}, {count}", fontsize=10, loc="left", color=INK)
