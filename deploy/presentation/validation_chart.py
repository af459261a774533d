"""Draws what `compile/validate_score.py` found: estimate against time, a panel a kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shuffledeploy.compiler.tuning.proof.validation import Sample
from shuffledeploy.model.command_output import replaced

COLUMNS = 4


def draw_scatter(samples: Sequence[Sample], document: dict[str, Any], path: Path) -> None:
    """Draw each candidate's estimated cycles against its measured time.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = math.ceil(len(samples) / COLUMNS)
    figure = Figure(figsize=(3.2 * COLUMNS, 2.8 * rows), layout="constrained")
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for panel in axes:
        panel.set_axis_off()
    for panel, sample, found in zip(axes, samples, document["kernels"], strict=False):
        panel.set_axis_on()
        marked = sample.scores["disagree"] > 0
        for chosen, colour, label in ((~marked, "tab:blue", ""), (marked, "tab:red", "marked")):
            panel.scatter(
                sample.times[chosen] / 1e3, sample.scores["estimate"][chosen] / 1e3, s=9,
                color=colour, label=label,
            )  # fmt: skip
        panel.loglog()
        panel.set_title(f"{sample.kernel}\nspearman {found['estimate']['spearman']:.2f}", size=8)
        panel.tick_params(labelsize=6, which="both")
    figure.supxlabel(f"µs, measured on this machine ({document['target']})", size=9)
    figure.supylabel("thousand cycles, estimated (red: its two forms disagree)", size=9)
    with replaced(path) as beside:
        figure.savefig(beside, format=path.suffix.lstrip(".") or "png", dpi=130)
