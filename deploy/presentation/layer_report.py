"""Parity by layer as a table, in words and as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shuffledeploy.compiler.bundle.layer_samples import LAYER_SAMPLES
from shuffledeploy.compiler.ir.memory_layout import HALF, INT8
from shuffledeploy.deploy.runtime.layer_parity import LayerError, LayerParity
from shuffledeploy.model.command_output import replaced
from shuffledeploy.model.printable import printable

_WITHIN, _BEYOND, _SHARE = "#1f6f8b", "#c0392b", "#d9a441"
#: Share of numbers cut off from which on other inputs were expected.
MANY_CUT = 0.01
_ENDS = {HALF: "65,504"}


def print_layers(console: Console, parity: LayerParity) -> None:
    """Print a line a layer, the first that is beyond its share, and the worst with advice."""
    table = Table(box=None, pad_edge=False)
    for heading in ("layer", "up to"):
        table.add_column(heading, overflow="fold")
    for heading in ("signal to noise, dB", "largest error", "saturated"):
        table.add_column(heading, justify="right")
    for layer in parity.layers:
        mark = "*" if layer.is_beyond else ""
        table.add_row(
            Text(printable(layer.name)), Text(printable(layer.operator)),
            f"{mark}{layer.signal_to_noise:.1f}", f"{layer.largest_error:.1e}",
            f"{layer.saturated:.2%}" if layer.saturated else "none",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"Against PyTorch's float32, at most {LAYER_SAMPLES:,} elements a layer; errors in parts of"
        " the spread (standard deviation) of its elements; * has more noise than its share"
    )
    console.print(Text(first_line(parity)))
    for layer in parity.worst:
        console.print(Text(f"{_about(layer)}: {printable(layer.name)}: {advice(layer, parity)}"))


def _about(layer: LayerError) -> str:
    """Say why a layer is among the worst: only what is beyond its share adds much."""
    return "adds much noise" if layer.is_beyond else "has the most noise"


def first_line(parity: LayerParity) -> str:
    """Say which layer is the first with more noise than its share."""
    first = parity.first_beyond
    if first is None:
        return "first layer beyond its share: none"
    return (
        f"first layer beyond its share: {printable(first.name)} ({first.kernel}),"
        f" {first.signal_to_noise:.1f} dB, its share {first.allowed:.1f} dB"
    )


def advice(layer: LayerError, parity: LayerParity) -> str:
    """Say what can be done about a layer that adds noise."""
    in_half = parity.precision == HALF
    if parity.precision == INT8:
        return _advice_in_int8(layer)
    if layer.saturated:
        what = f"numbers beyond {_ENDS[HALF]}" if in_half else "numbers beyond float32's"
        return f"{what}: check how inputs are normalised" + (
            ", or compile with --precision float32" if in_half else ""
        )
    if not layer.is_beyond:
        return "within its share: nothing is to be done"
    if layer.rounding_alone:
        return (
            "its own rounding, since its numbers are far from 0 and near each other: where answers"
            " need more, compile with --precision float32"
        )
    if in_half:
        return "its sums cancel, or what it reads is noisy: compile with --precision float32"
    return "no rounding explains it: the parity of kernels names the one that is wrong"


def _advice_in_int8(layer: LayerError) -> str:
    if layer.saturated > MANY_CUT:
        return "many numbers are cut off: --calibrate with inputs like those to come"
    if not layer.is_beyond:
        return "within its share: nothing is to be done"
    return "few steps of int8 for its numbers: --calibrate, or compile with --precision float16"


def draw_layers(path: Path, parity: LayerParity, title: str) -> None:
    """Draw signal to noise by layer beside each layer's share, as PNG or SVG.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    layers = parity.layers
    figure = Figure(figsize=(max(6.4, 0.16 * len(layers) + 2), 4.4), layout="constrained")
    axes = figure.subplots()
    places = range(len(layers))
    colours = [_BEYOND if layer.is_beyond else _WITHIN for layer in layers]
    axes.bar(places, [max(0.0, layer.signal_to_noise) for layer in layers], color=colours)
    axes.step(
        places, [layer.allowed for layer in layers], where="mid", color=_SHARE,
        label="its share of the noise that the answer may have",
    )  # fmt: skip
    names = [printable(layer.name) for layer in layers]
    axes.set_xticks(places, names, rotation=90, size=6)
    axes.set_xlim(-0.7, len(layers) - 0.3)
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_ylabel("signal to noise, dB")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", frameon=False, fontsize=7)
    figure.suptitle(title, x=0.01, ha="left", size=9)
    with replaced(path) as beside:
        figure.savefig(beside, format=path.suffix.lstrip(".") or "png", dpi=130)
