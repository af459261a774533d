"""Run a bundle on a device, prove its answers against PyTorch's, and say how fast it is."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from compile.bundle import Bundle, Manifest, load_bundle
from compile.passes.graph import Array
from deploy.device_names import DEVICE_HELP, parse_device_name
from deploy.execution import RunningNetwork, open_network
from deploy.images import Prediction, image_input, top_predictions
from deploy.latency import (
    RUNS,
    Instructions,
    Latency,
    count_instructions,
    measure_latency,
    require_real,
)
from deploy.parity import Parity, check_parity
from deploy.reports import require_writable, steps, write_json
from model.errors import UsageError, command

_DESCRIPTION = """\
Runs a bundle (made by compile/tune.py) on a device. In order: every file of the bundle is held
against its hash; architecture, features and TVM runtime of the device against what the library
needs; then the library goes there, and its answers are held against PyTorch's. Then one inference
is timed on a real device, or its instructions are counted on an emulated one.

  run.py build/shufflenet                        on this machine, or the emulated core it is for
  run.py build/shufflenet --input cat.jpg        the five likeliest classes of a picture
  run.py build/shufflenet --device rpc://10.0.0.7:9090 --json result.json
  run.py build/shufflenet --device emulated --count      the heaviest kernels, by instructions
"""
_EPILOG = """\
exit status: 0 when parity holds; 1 when it does not (the first wrong kernel is named) or the
device fails; 2 when the bundle, the image or the device's name is wrong. An option --device of
TVM's RPC kind gives that machine full control over what it is sent: keep it off untrusted networks.
"""
_SHOWN_KERNELS = 8


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one run.

    Attributes
    ----------
    parity : Parity
        Against PyTorch.
    figure : Latency or Instructions or None
        What was measured or counted; None after a failed parity.
    top : tuple of Prediction
        The likeliest classes of the user's image; empty without one.
    """

    parity: Parity
    figure: Latency | Instructions | None
    top: tuple[Prediction, ...]


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    require_writable(options.json)
    if options.runs < 1:
        raise UsageError(f"--runs takes at least 1, not {options.runs}")
    if options.device is not None:
        parse_device_name(options.device)
    bundle = load_bundle(options.bundle)
    image = image_input(options.input, bundle.manifest) if options.input else None
    total = 2 + len(bundle.manifest.seeds) + (image is not None)
    with steps(f"opening {options.device or 'the device'}", total + 1) as tell:
        with open_network(bundle, options.device) as network:
            _require_figure(network, options)
            result = _run(network, image, options, tell)
            described = describe(network)
    print_result(bundle, described, result, every_kernel=options.count)
    if options.json is not None:
        write_json(options.json, to_json(bundle.manifest, described, result))
    result.parity.require(described["name"])
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder made by tune.py")
    parser.add_argument(
        "--device", metavar="D",
        help=f"{DEVICE_HELP}; default: local where the library fits this machine, else emulated",
    )  # fmt: skip
    parser.add_argument("--input", type=Path, metavar="IMAGE", help="a PNG or JPEG to classify")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument(
        "--runs", type=int, default=RUNS, help=f"runs to time on a real device (default {RUNS})"
    )
    figure = parser.add_mutually_exclusive_group()
    figure.add_argument(
        "--count", action="store_true", help="count instructions by kernel (emulated devices)"
    )
    figure.add_argument("--latency", action="store_true", help="insist on a time (real devices)")
    return parser.parse_args(argv)


def _require_figure(network: RunningNetwork, options: argparse.Namespace) -> None:
    """Refuse a figure that this kind of device cannot give, before any work."""
    if options.latency:
        require_real(network.device)
    if options.count and not network.device.is_emulated:
        raise UsageError(
            f"{network.device.name} cannot count instructions: an emulated board can, for a bundle"
            " built for ARM (--device emulated)"
        )


def _run(
    network: RunningNetwork,
    image: Array | None,
    options: argparse.Namespace,
    tell: Callable[[str | None], None],
) -> Result:
    """Do all that needs the device."""
    tell(None)
    tell(f"{network.bundle.manifest.network} on {network.device.name}: parity with PyTorch")
    parity = check_parity(network, network.bundle, lambda: tell(None))
    if not parity.passed:
        # A wrong library has no speed and no answers worth showing.
        return Result(parity, None, ())
    top: tuple[Prediction, ...] = ()
    if image is not None:
        top = top_predictions(network.run([image])[0], network.bundle.manifest.network)
        tell(None)
    figure: Latency | Instructions
    if network.device.is_emulated:
        tell("counting the instructions of one inference")
        figure = count_instructions(network)
    else:
        tell("timing")
        figure = measure_latency(network, runs=options.runs)
    return Result(parity, figure, top)


def describe(network: RunningNetwork) -> dict[str, Any]:
    """Describe the device for a JSON file."""
    device = network.device
    return {
        "name": device.name,
        "kind": parse_device_name(device.name).kind,
        "is_emulated": device.is_emulated,
        "architecture": device.information.architecture,
        "cpu": device.information.cpu,
        "tvm_version": device.information.tvm_version,
        "not_checked": list(network.unchecked),
    }


def figure_json(figure: Latency | Instructions | None) -> dict[str, Any]:
    """Give a figure's keys, its kind first; empty where there is none."""
    if figure is None:
        return {}
    kind = "measured" if isinstance(figure, Latency) else "counted"
    name = "latency" if isinstance(figure, Latency) else "instructions"
    return {name: {"kind": kind, **dataclasses.asdict(figure)}}


def to_json(manifest: Manifest, device: dict[str, Any], result: Result) -> dict[str, Any]:
    """Give everything that came of a run, for a JSON file."""
    return {
        "network": manifest.network,
        "target": manifest.target,
        "device": device,
        "kernels": len(manifest.kernels),
        "kernel_calls": manifest.kernel_calls,
        "shuffle_kernels": manifest.shuffle_kernels,
        "parity": result.parity.to_json(),
        **figure_json(result.figure),
        "top5": [dataclasses.asdict(prediction) for prediction in result.top],
    }


def print_result(
    bundle: Bundle, device: dict[str, Any], result: Result, *, every_kernel: bool
) -> None:
    """Print what came of a run, readable at 80 columns."""
    console = Console(highlight=False, soft_wrap=False)
    manifest = bundle.manifest
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("network", f"{escape(manifest.network)}, built for {escape(manifest.target)}")
    core = device["cpu"] or "core unknown"
    table.add_row(
        "device", f"{escape(device['name'])} ({core}, TVM {device['tvm_version'] or '?'})"
    )
    if device["not_checked"]:
        table.add_row(
            "not checked", f"the device does not tell: {'; '.join(device['not_checked'])}"
        )
    table.add_row(
        "kernels",
        f"{len(manifest.kernels)}, {manifest.kernel_calls} calls, "
        f"{manifest.shuffle_kernels or 'no'} shuffle kernels",
    )
    table.add_row("parity", result.parity.verdict)
    if result.figure is not None:
        table.add_row(*figure_row(result.figure))
    console.print(table)
    if every_kernel and isinstance(result.figure, Instructions):
        console.print(_kernel_table(result.figure))
    if result.top:
        console.print(_top_table(result.top))


def figure_row(figure: Latency | Instructions) -> tuple[str, str]:
    """Name a figure and give it with its kind."""
    if isinstance(figure, Latency):
        return "latency", (
            f"{figure.median_ms:.3g} ms measured on {figure.core}: median of {figure.runs} runs,"
            f" p10 {figure.p10_ms:.3g}, p90 {figure.p90_ms:.3g}, {figure.threads} thread"
        )
    return "instructions", (
        f"{figure.total / 1e6:.2f} M counted in the library on an emulated {figure.core}"
        f" ({figure.process / 1e6:.2f} M with the virtual machine and the RPC call)"
    )


def _kernel_table(figure: Instructions) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("heaviest kernels, instructions counted", overflow="fold")
    table.add_column("M", justify="right")
    table.add_column("share", justify="right")
    for name, count in list(figure.kernels.items())[:_SHOWN_KERNELS]:
        table.add_row(escape(name), f"{count / 1e6:.3f}", f"{count / max(1, figure.total):.1%}")
    return table


def _top_table(top: tuple[Prediction, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("class", justify="right")
    named = any(prediction.name for prediction in top)
    if named:
        table.add_column("name")
    table.add_column("probability", justify="right")
    for prediction in top:
        name = [escape(prediction.name or "")] if named else []
        table.add_row(str(prediction.index), *name, f"{prediction.probability:.1%}")
    return table


if __name__ == "__main__":
    sys.exit(main(None))
