"""Run a bundle on a device: parity first, then a time, a count, the classes of a picture."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from shuffledeploy.compiler.bundle.folder import load_bundle
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.deploy.report.run_report import Result, describe, print_result, to_json
from shuffledeploy.deploy.runtime.execution import RunningNetwork, open_network
from shuffledeploy.deploy.runtime.latency import (
    Instructions,
    Latency,
    count_instructions,
    measure_latency,
    require_real,
)
from shuffledeploy.deploy.runtime.network_estimate import Cycles, estimate_network
from shuffledeploy.deploy.runtime.parity import check_parity
from shuffledeploy.deploy.runtime.pictures import Prediction, image_input, top_predictions
from shuffledeploy.model.command_output import steps, write_json
from shuffledeploy.model.errors import Failure, UsageError


def run_bundle(options: argparse.Namespace) -> int:
    """Do what the command was asked for; return its exit status."""
    bundle = load_bundle(options.bundle)
    image = image_input(options.input, bundle.manifest) if options.input else None
    total = 2 + len(bundle.manifest.seeds) + (image is not None)
    with steps(f"opening {options.device or 'the device'}", total + 1) as tell:
        with open_network(bundle, options.device, options.core) as network:
            _require_figure(network, options)
            result = _run(network, image, options, tell)
            described = describe(network)
    clock = options.clock_ghz
    print_result(bundle, described, result, every_kernel=options.count, clock_ghz=clock)
    if options.json is not None:
        write_json(options.json, to_json(bundle.manifest, described, result, clock))
    result.parity.require(described["name"])
    return 0


def _require_figure(network: RunningNetwork, options: argparse.Namespace) -> None:
    """Refuse a figure that this kind of device cannot give, before any work."""
    if options.latency:
        require_real(network.device)
    if options.count and not network.device.can_count:
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
        return Result(parity, figure, top, _estimate(network, tell) if options.count else None)
    tell("timing")
    figure = measure_latency(network, runs=options.runs)
    return Result(parity, figure, top)


def _estimate(network: RunningNetwork, tell: Callable[[str | None], None]) -> Cycles | str:
    """Estimate cycles; where nothing can, the count stands alone and says so."""
    tell("estimating the cycles of one inference")
    try:
        return estimate_network(network)
    except (UsageError, Failure) as error:
        return str(error)
