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
    # AlexNet's counterpart is so far away that the others would lie on one another beside it.
    figure, (near, far) = plt.subplots(
        1, 2, sharey=True, figsize=(9, 5), width_ratios=(4, 1), layout="constrained"
    )
    for one in ABLATIONS:
        percent = [100 * share for share in accuracies.get(one.name, ())]
        if not percent or one.name not in milliseconds:
            continue
        spread = statistics.stdev(percent) if len(percent) > 1 else 0.0
        at = (milliseconds[one.name], statistics.mean(percent))
        colour = _COLOURS[one.unit]
        filled = one.unit != "ShuffleNet" or one.shuffles or one.groups == 1
        axes = far if one.unit == "AlexNet" else near
        axes.errorbar(
            *at, yerr=spread, fmt="o", color=colour, capsize=2,
            markerfacecolor=colour if filled else "white",
        )  # fmt: skip
        offset, side = ((5, 4), "left") if filled else ((-5, -11), "right")
        axes.annotate(
            _label(one), at, offset, textcoords="offset points", fontsize=9, ha=side, color=colour
        )
    far.margins(x=0.6)
    near.set_ylabel("% of 10,000 test images, measured")
    figure.supxlabel("ms of one inference on a Raspberry Pi 4, estimated (28x28, untuned)", size=10)
    figure.suptitle("Fashion-MNIST; g: groups of ShuffleNet, hollow: without shuffles", size=10)
    try:
        with replaced(path) as beside:
            figure.savefig(beside, format="png", dpi=110)
    finally:
        plt.close(figure)


def _label(one: Ablation) -> str:
    return f"g{one.groups}" if one.unit == "ShuffleNet" else one.unit
