"""The ablations as a picture: accuracy against milliseconds that were estimated of a board."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from shuffledeploy.model.ablation_networks import ABLATIONS, Ablation
from shuffledeploy.model.command_output import replaced

_COLOURS = {
    "ShuffleNet": "#1f6f8b", "VGG-like": "#8a8a8a", "ResNet": "#7a5195", "ResNeXt": "#d9a441",
    "AlexNet": "#b33a3a",
}  # fmt: skip


def draw_ablations(
    path: Path, accuracies: Mapping[str, Sequence[float]], milliseconds: Mapping[str, float]
) -> None:
    """Draw a PNG: a point a network, its bar the standard deviation of its seeds.

    Parameters
    ----------
    path : Path
        The file; written beside and renamed.
    accuracies : mapping
        Shares by network, a seed each; networks without any are left out.
    milliseconds : mapping
        By network.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for one in ABLATIONS:
        percent = [100 * share for share in accuracies.get(one.name, ())]
        if not percent or one.name not in milliseconds:
            continue
        spread = statistics.stdev(percent) if len(percent) > 1 else 0.0
        at = (milliseconds[one.name], statistics.mean(percent))
        colour = _COLOURS[one.unit]
        filled = one.unit != "ShuffleNet" or one.shuffles or one.groups == 1
        axes.errorbar(
            *at, yerr=spread, fmt="o", color=colour, capsize=2,
            markerfacecolor=colour if filled else "white",
        )  # fmt: skip
        axes.annotate(_label(one), at, (6, 3), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("ms of one inference on a Raspberry Pi 4, estimated (28x28, no tuning records)")
    axes.set_ylabel("% of 10,000 test images, measured")
    axes.set_title("Fashion-MNIST; g: groups, hollow: without shuffles", fontsize=10)
    try:
        with replaced(path) as beside:
            figure.savefig(beside, format="png", dpi=110)
    finally:
        plt.close(figure)


def _label(one: Ablation) -> str:
    return f"g{one.groups}" if one.unit == "ShuffleNet" else one.unit
