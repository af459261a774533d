"""Draws what `compile/tune.py` found: the network's score against minutes and against trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shuffledeploy.compiler.tuning.score import MEASURED_UNIT
from shuffledeploy.deploy.benchmark.engines import OURS
from shuffledeploy.model.command_output import replaced
from shuffledeploy.model.errors import UsageError

if TYPE_CHECKING:
    from shuffledeploy.compiler.tuning.outcome import Outcome

LINE, PEER, INK = "#1f6f8b", "#d9a441", "#222222"
NS_PER_MS = 1e6


def peer_latencies(path: Path, model: str, resolution: str) -> dict[str, float]:
    """Read other engines' latencies of a network from `bench.py --json`.

    Parameters
    ----------
    path : Path
        The file.
    model, resolution : str
        Of the zoo; ``HxW``.

    Returns
    -------
    dict
        Milliseconds by the engine's name and version; one thread.

    Raises
    ------
    UsageError
        If the file has none.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        found = {
            f"{row['engine']} {row['engine_version']}": float(row["median_ms"])
            for row in rows
            if (row["model"], row["resolution"], row["threads"]) == (model, resolution, 1)
            and row["engine"] != OURS
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--beside: {path} is no file of bench.py --json ({error})") from error
    if not found:
        raise UsageError(f"--beside: {path} has no other engine's {model} at {resolution}")
    return found


def draw_curve(path: Path, outcome: Outcome, beside: Mapping[str, float]) -> None:
    """Draw the best score so far, from the moment when each kernel had one.

    Parameters
    ----------
    path : Path
        The PNG, written beside and renamed.
    outcome : Outcome
        Of a run that tried something.
    beside : mapping
        Other engines' latencies in milliseconds, drawn as lines where the scores are times.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    curve, unit = outcome.search.curve, outcome.search.unit
    scale, named = (
        (NS_PER_MS, "ms, measured") if unit == MEASURED_UNIT else (1e6, f"million {unit}")
    )
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    scores = [moment.score / scale for moment in curve]
    places = (
        (left, [moment.seconds / 60 for moment in curve], "minutes of search"),
        (right, [float(moment.trials) for moment in curve], "candidates tried"),
    )
    for axes, positions, label in places:
        axes.step(positions, scores, where="post", color=LINE, linewidth=1.8)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        for name, latency in (beside if unit == MEASURED_UNIT else {}).items():
            axes.axhline(latency, color=PEER, linewidth=1, linestyle="--")
            axes.annotate(name, (0.99, latency), xycoords=("axes fraction", "data"), ha="right",
                          va="bottom", size=7, color=INK)  # fmt: skip
    if unit == MEASURED_UNIT and beside:
        left.set_ylim(bottom=0)
    left.set_ylabel(f"{named}\nbest of each kernel, times its calls, summed", size=8)
    manifest = outcome.bundle.manifest
    figure.suptitle(
        f"{manifest.network} for {manifest.target}: {scores[0]:.3g} to {scores[-1]:.3g}"
        f" {named} ({len(outcome.search.tasks)} kernels)",
        x=0.01, ha="left", size=10,
    )  # fmt: skip
    with replaced(path) as beside_it:
        figure.savefig(beside_it, format="png", dpi=130)
