"""A comparison as a picture: figures on the left, ratios beside the paper's on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from shuffledeploy.deploy.runtime.comparison import ComparisonRow
from shuffledeploy.model.command_output import replaced, three_digits

OURS, PAPERS, INK, FAINT = "#1f6f8b", "#d9a441", "#222222", "#8a8a8a"
_STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": FAINT, "xtick.color": FAINT, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
}  # fmt: skip


def draw_chart(
    path: Path, groups: Sequence[Sequence[ComparisonRow]], title: str, source: str
) -> None:
    """Draw a PNG, written beside and renamed.

    Parameters
    ----------
    path : Path
        The file; PNG whatever its ending.
    groups : sequence of sequence of ComparisonRow
        The rows of each resolution.
    title : str
        What was compared on what.
    source : str
        Where the paper's ratios come from.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    tallest = max(len(rows) for rows in groups)
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(
            len(groups), 2, figsize=(11, 1.5 + len(groups) * (1.1 + 0.55 * tallest)),
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for pair, rows in zip(axes, groups, strict=True):
            _draw_values(pair[0], rows)
            _draw_ratios(pair[1], rows)
        figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
        figure.supxlabel(f"paper: {source}", fontsize=8, color=FAINT, x=0.01, ha="left")
        try:
            with replaced(path) as beside:
                figure.savefig(beside, format="png", dpi=150)
        finally:
            plt.close(figure)


def _draw_values(axes: Any, rows: Sequence[ComparisonRow]) -> None:
    """Draw one resolution's figures, with p10 to p90 where they were measured."""
    scale, unit = (1.0, "ms") if rows[0].unit == "ms" else (1e6, "million instructions")
    values = [row.value / scale for row in rows]
    places = range(len(rows))
    axes.barh(places, values, height=0.55, color=OURS)
    ends = list(values)
    for place, row in zip(places, rows, strict=True):
        if row.spread is not None:
            low, high = row.spread["p10"] / scale, row.spread["p90"] / scale
            axes.plot([low, high], [place, place], color=INK, linewidth=1.4, marker="|")
            ends[place] = max(ends[place], high)
    for place, value, end in zip(places, values, ends, strict=True):
        axes.annotate(three_digits(value), (end, place), xytext=(6, 0), va="center",
                      textcoords="offset points", fontweight="bold")  # fmt: skip
    of = "median and p10 to p90 of one inference" if rows[0].spread else "one inference"
    _finish(axes, rows, f"{rows[0].resolution}: {unit}, {of} ({rows[0].kind})", max(ends))


def _draw_ratios(axes: Any, rows: Sequence[ComparisonRow]) -> None:
    """Draw how many times less than AlexNet each takes, the paper's beside ours."""
    pairs = [(row.ratio_to_alexnet, row.paper_ratio) for row in rows]
    largest = max((ratio for pair in pairs for ratio in pair if ratio), default=1.0)
    for place, pair in enumerate(pairs):
        for ratio, offset, color in zip(pair, (-0.18, 0.18), (OURS, PAPERS), strict=True):
            if ratio is not None:
                axes.barh(place + offset, ratio, height=0.32, color=color)
                axes.annotate(f"{ratio:.1f}x", (ratio, place + offset), xytext=(6, 0), va="center",
                              textcoords="offset points", fontsize=9)  # fmt: skip
    axes.axvline(1, color=FAINT, linewidth=0.8, linestyle=":")
    for label, color in ((f"here, {rows[0].kind}", OURS), ("paper, measured", PAPERS)):
        axes.barh(0, 0, color=color, label=label)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    _finish(axes, rows, "AlexNet over it", largest)
    axes.set_yticklabels([])


def _finish(axes: Any, rows: Sequence[ComparisonRow], title: str, largest: float) -> None:
    axes.set_yticks(range(len(rows)), [row.model for row in rows])
    # The same on both sides, or the rows would not line up.
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, largest * 1.18)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
