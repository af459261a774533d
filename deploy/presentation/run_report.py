"""What `run.py` says of one run: on screen and as JSON, every figure with its kind."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from typing import Any

from rich.table import Table
from rich.text import Text

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.bundle.precision_text import precision_text
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.deploy.devices.device_names import DeviceName, parse_device_name
from shuffledeploy.deploy.estimate.board_cycles import LEFT_OUT, BoardCycles
from shuffledeploy.deploy.estimate.silicon_errors import known_errors
from shuffledeploy.deploy.presentation.layer_report import print_layers
from shuffledeploy.deploy.runner.runner_answer import KernelTime
from shuffledeploy.deploy.runner.running_runner import RunnerResult
from shuffledeploy.deploy.runtime.execution import LoadedNetwork, RunningNetwork
from shuffledeploy.deploy.runtime.latency import Instructions, Latency
from shuffledeploy.deploy.runtime.layer_parity import LayerParity
from shuffledeploy.deploy.runtime.network_estimate import Cycles, on_board_json
from shuffledeploy.deploy.runtime.parity import Parity
from shuffledeploy.deploy.runtime.pictures import Prediction
from shuffledeploy.model.command_output import counted
from shuffledeploy.model.plain_console import plain_console
from shuffledeploy.model.printable import printable

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
    cycles : Cycles or str or None
        Estimated with ``--count``; or why there are none.
    kernel_times : tuple of KernelTime
        Of each call in order, where the bench runner was asked for them.
    layers : LayerParity or None
        Of each layer, where that was asked for.
    """

    parity: Parity
    figure: Latency | Instructions | None
    top: tuple[Prediction, ...]
    cycles: Cycles | str | None = None
    kernel_times: tuple[KernelTime, ...] = ()
    layers: LayerParity | None = None


BUNDLE, STANDALONE, RUNNER = "the bundle", "the standalone network", "the bench runner"


def describe(network: LoadedNetwork) -> dict[str, Any]:
    """Describe the device for a JSON file."""
    device = network.device
    return {
        "name": device.name,
        "model": device.information.name,
        "kind": parse_device_name(device.name).kind,
        "is_emulated": device.is_emulated,
        "architecture": device.information.architecture,
        "cpu": device.information.cpu,
        "tvm_version": device.information.tvm_version,
        "not_checked": list(network.unchecked),
        "ran": BUNDLE if isinstance(network, RunningNetwork) else STANDALONE,
    }


def describe_place(place: DeviceName, result: RunnerResult, manifest: Manifest) -> dict[str, Any]:
    """Describe where the bench runner ran."""
    return {
        "name": place.text,
        "model": result.name,
        "kind": place.kind,
        "is_emulated": result.is_emulated,
        "architecture": manifest.architecture,
        "cpu": result.core,
        "tvm_version": None,
        "not_checked": [],
        "ran": RUNNER,
    }


def figure_json(figure: Latency | Instructions | None) -> dict[str, Any]:
    """Give a figure's keys, its kind first; empty where there is none."""
    if figure is None:
        return {}
    kind = "measured" if isinstance(figure, Latency) else "counted"
    name = "latency" if isinstance(figure, Latency) else "instructions"
    return {name: {"kind": kind, **dataclasses.asdict(figure)}}


def cycles_json(cycles: Cycles | str | None, clock_ghz: float | None) -> dict[str, Any]:
    """Give an estimate's key, its kind first; empty where there is none."""
    if not isinstance(cycles, Cycles):
        return {}
    estimate = {"kind": "estimated", **dataclasses.asdict(cycles)}
    del estimate["on_board"]
    if clock_ghz is not None:
        estimate |= {"clock_ghz": clock_ghz, "milliseconds": cycles.milliseconds(clock_ghz)}
    return {"cycles": estimate, **on_board_json(cycles.on_board)}


def to_json(
    manifest: Manifest, device: dict[str, Any], result: Result, clock_ghz: float | None = None
) -> dict[str, Any]:
    """Give everything that came of a run, for a JSON file."""
    return {
        "network": manifest.network,
        "target": manifest.target,
        "precision": manifest.precision,
        "device": device,
        "kernels": len(manifest.kernels),
        "kernel_calls": manifest.kernel_calls,
        "shuffle_kernels": manifest.shuffle_kernels,
        "parity": result.parity.to_json(),
        **figure_json(result.figure),
        **cycles_json(result.cycles, clock_ghz),
        **_kernel_times_json(result.kernel_times),
        **({} if result.layers is None else {"layers": result.layers.to_json()}),
        "top5": [dataclasses.asdict(prediction) for prediction in result.top],
    }


def _kernel_times_json(times: tuple[KernelTime, ...]) -> dict[str, Any]:
    if not times:
        return {}
    calls = [{"name": time.name, "median_ms": time.median_ms} for time in times]
    return {"kernel_times": {"kind": "measured", "calls": calls}}


def print_result(
    bundle: Bundle,
    device: dict[str, Any],
    result: Result,
    *,
    every_kernel: bool,
    clock_ghz: float | None = None,
) -> None:
    """Print what came of a run, readable at 80 columns."""
    console = plain_console()
    manifest = bundle.manifest
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("network", f"{manifest.network}, built for {manifest.target}")
    if manifest.precision != FLOAT:
        table.add_row("computes in", precision_text(manifest))
    core = device["cpu"] or "core unknown"
    core = f"{device['model']}, {core}" if device["model"] else core
    runtime = "" if device["ran"] == RUNNER else f", TVM {device['tvm_version'] or '?'}"
    table.add_row("device", f"{device['name']} ({core}{runtime})")
    if device["ran"] != BUNDLE:
        table.add_row("ran", device["ran"])
        table.add_row("an app needs", bundle.app_files)
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
    elif device["is_emulated"]:
        table.add_row("latency", "none: an emulator's times say nothing of the core")
    elif result.parity.passed and device["kind"] in ("rpc", "tracker"):
        table.add_row("latency", "none: by TVM's RPC alone a standalone network is not timed")
    if result.cycles is not None:
        table.add_row("estimated", cycles_line(result.cycles, clock_ghz))
    if isinstance(result.cycles, Cycles) and result.cycles.on_board is not None:
        table.add_row("on the board", board_line(result.cycles.on_board))
    console.print(table)
    if every_kernel and isinstance(result.figure, Instructions) and result.figure.kernels:
        console.print(_kernel_table(result.figure, result.cycles))
    if result.kernel_times:
        console.print(_time_table(result.kernel_times))
    if result.top:
        console.print(_top_table(result.top))
    if result.layers is not None:
        print_layers(console, result.layers)


def figure_row(figure: Latency | Instructions) -> tuple[str, str]:
    """Name a figure and give it with its kind."""
    if isinstance(figure, Latency):
        return "latency", (
            f"{figure.median_ms:.3g} ms measured on {figure.place}: median of {figure.runs} runs,"
            f" p10 {figure.p10_ms:.3g}, p90 {figure.p90_ms:.3g},"
            f" {counted(figure.threads, 'thread')}"
        )
    return "instructions", (
        f"{figure.total / 1e6:.2f} M counted in the library on an emulated {figure.core}"
        f" ({figure.process / 1e6:.2f} M in the whole process)"
    )


def cycles_line(cycles: Cycles | str, clock_ghz: float | None) -> str:
    """Say what was estimated, or why nothing was."""
    if isinstance(cycles, str):
        return f"no cycles: {cycles}"
    line = f"{cycles.total / 1e6:.2f} M cycles in the library ({cycles.source})"
    if clock_ghz is None:
        return line
    return f"{line}; {cycles.milliseconds(clock_ghz):.3g} ms (estimated) at {clock_ghz:g} GHz"


def board_line(cycles: BoardCycles) -> str:
    """Say how long an inference is estimated to take on a board, and what of."""
    return (
        f"{cycles.milliseconds:.3g} ms estimated on {cycles.board} at {cycles.clock_ghz:g} GHz:"
        f" {parts_line(cycles)}; left out: {LEFT_OUT}. {error_of_board(cycles.board)}"
    )


def error_of_board(board: str) -> str:
    """Say how far estimates on a board were from times that were published of it."""
    known = known_errors(board)
    if known is None:
        return "Nobody held estimates on this board against measured times."
    return f"{known.verdict[:1].upper()}{known.verdict[1:]}."


def parts_line(cycles: BoardCycles) -> str:
    """Say what share of an estimate each of its parts is."""
    parts = cycles.cycles._asdict().items()
    return ", ".join(
        f"{name.replace('_', ' ')} {part / cycles.total:.0%}" for name, part in parts if part
    )


def _kernel_table(figure: Instructions, cycles: Cycles | str | None) -> Table:
    """List the heaviest kernels: by estimated cycles, where there are any."""
    table = Table(box=None, pad_edge=False)
    estimated = cycles.kernels if isinstance(cycles, Cycles) else {}
    table.add_column("heaviest kernels", overflow="fold")
    table.add_column("M instructions, counted", justify="right")
    if estimated:
        table.add_column("M cycles, estimated", justify="right")
    table.add_column("share", justify="right")
    shares = estimated or figure.kernels
    total = max(1.0, sum(shares.values()))
    for name in list(shares)[:_SHOWN_KERNELS]:
        counted = f"{figure.kernels.get(name, 0) / 1e6:.3f}"
        cells = [f"{estimated[name] / 1e6:.3f}"] if estimated else []
        table.add_row(name, counted, *cells, f"{shares[name] / total:.1%}")
    return table


def _time_table(times: tuple[KernelTime, ...]) -> Table:
    """List the kernels that take the most time, their calls together."""
    sums: defaultdict[str, float] = defaultdict(float)
    for time in times:
        sums[time.name] += time.median_ms
    calls = Counter(time.name for time in times)
    heaviest = sorted(sums.items(), key=lambda kernel: -kernel[1])[:_SHOWN_KERNELS]
    total = sum(sums.values()) or 1
    table = Table(box=None, pad_edge=False)
    table.add_column("heaviest kernels", overflow="fold")
    for heading in ("calls", "ms, measured", "share"):
        table.add_column(heading, justify="right")
    for name, taken in heaviest:
        table.add_row(name, str(calls[name]), f"{taken:.4f}", f"{taken / total:.1%}")
    return table


def _top_table(top: tuple[Prediction, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("class", justify="right")
    named = any(prediction.name for prediction in top)
    if named:
        table.add_column("name")
    table.add_column("probability", justify="right")
    for prediction in top:
        name = [Text(printable(prediction.name or ""))] if named else []
        table.add_row(str(prediction.index), *name, f"{prediction.probability:.1%}")
    return table
