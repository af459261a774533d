"""The complexity of the networks, counted, beside what their papers report."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from shuffledeploy.model.complexity import Complexity, complexity, trace_shapes
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.plain_console import plain_console
from shuffledeploy.model.registry import construct, input_shape
from shuffledeploy.model.resolution import parse_resolution, write_resolution

#: Millions of multiply-adds at 224x224 in the ShuffleNet paper, and where it says so.
PAPER: dict[str, tuple[int, str]] = {
    "shufflenet-g1-x1": (143, "Table 1"),
    "shufflenet-g2-x1": (140, "Table 1"),
    "shufflenet-g3-x1": (137, "Table 1"),
    "shufflenet-g4-x1": (133, "Table 1"),
    "shufflenet-g8-x1": (137, "Table 1"),
    "shufflenet-g3-x0.25": (13, "Table 2"),
    "shufflenet-g3-x0.5": (38, "Table 2"),
    "shufflenet-g3-x1.5": (292, "Table 5"),
    "shufflenet-g3-x2": (524, "Table 5"),
    "mobilenet-x1.0": (569, "Table 5"),
    "alexnet": (720, "Table 8"),
}


def network_complexity(name: str, resolution: tuple[int, int] | None = None) -> Complexity:
    """Count a network of the registry.

    Parameters
    ----------
    name : str
        One of :func:`model.registry.names`.
    resolution : tuple of int, optional
        Height and width; by default the network's own.

    Returns
    -------
    Complexity
        For one image.

    Raises
    ------
    UsageError
        An unknown name, or a resolution out of range.
    """
    shape = input_shape(name, resolution)
    with torch.device("meta"):
        module = construct(name)
    return complexity(trace_shapes(module, shape))


def paper_table(console: Console) -> Table:
    """Count every network that the paper gives a complexity for."""
    table = Table(
        title="Counted multiply-adds (M) and parameters at 224x224",
        caption="0.25x: the paper gives no width of the first convolution. Here it is 6 channels, "
        "as in public re-implementations; 12 would come to 13.1 M.",
    )
    table.add_column("network", no_wrap=True)
    table.add_column("paper", no_wrap=True)
    for heading in ("its M", "convs", "with FC", "parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in track(PAPER, "tracing", console=console, transient=True):
        millions, source = PAPER[name]
        count = network_complexity(name)
        table.add_row(
            name,
            source,
            str(millions),
            f"{count.convolution_multiply_adds / 1e6:.2f}",
            f"{count.multiply_adds / 1e6:.2f}",
            f"{count.parameters:,}",
        )
    return table


def kinds_table(name: str, size: str, count: Complexity) -> Table:
    """Show where a network's multiply-adds go."""
    table = Table(title=f"{name} at {size}: counted")
    table.add_column("kind of layer")
    for heading in ("multiply-adds", "share"):
        table.add_column(heading, justify="right")
    for kind, multiply_adds in count.by_kind().items():
        table.add_row(kind, f"{multiply_adds:,}", f"{multiply_adds / count.multiply_adds:.1%}")
    table.add_section()
    table.add_row("all", f"{count.multiply_adds:,}", "")
    table.add_row("parameters", f"{count.parameters:,}", "")
    return table


def layers_table(count: Complexity) -> Table:
    """Show every layer with multiply-adds; its batch norm's parameters are in the total only."""
    # Two spaces between columns, not a frame: five of them fit in 80 characters.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("kind", no_wrap=True)
    for heading in ("output", "mult-adds", "params"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in count.layers:
        if layer.multiply_adds:
            shape = "x".join(map(str, layer.output_shape[1:]))
            cells = (f"{layer.multiply_adds / 1e6:.3f} M", f"{layer.parameters:,}")
            table.add_row(layer.name, layer.kind, shape, *cells)
    return table


def write_json(path: Path, name: str, size: str, count: Complexity) -> None:
    """Write the count of one network.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    document = {
        "network": name,
        "resolution": size,
        "kind": "counted",
        "multiply_adds": count.multiply_adds,
        "convolution_multiply_adds": count.convolution_multiply_adds,
        "parameters": count.parameters,
        "layers": [dataclasses.asdict(layer) for layer in count.layers],
    }
    try:
        path.write_text(json.dumps(document, indent=1) + "\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None


def report(arguments: argparse.Namespace) -> int:
    """Count and print what was asked for; return the exit status."""
    console = plain_console()
    if arguments.model is None:
        console.print(paper_table(console))
        return 0
    resolution = parse_resolution(arguments.resolution) if arguments.resolution else None
    size = write_resolution(input_shape(arguments.model, resolution)[2:])
    count = network_complexity(arguments.model, resolution)
    if arguments.layers:
        console.print(layers_table(count))
    console.print(kinds_table(arguments.model, size, count))
    if arguments.json:
        write_json(arguments.json, arguments.model, size, count)
        console.print(f"written: {arguments.json}")
    return 0
