"""Run a bundle on a device: parity first, then a time, a count, the classes of a picture."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from shuffledeploy.compiler.bundle.folder import Bundle, load_bundle
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.estimate.boards import find_board
from shuffledeploy.deploy.presentation.layer_report import draw_layers
from shuffledeploy.deploy.presentation.run_report import (
    Result,
    describe,
    describe_place,
    print_result,
    to_json,
)
from shuffledeploy.deploy.runner.network_description import compares
from shuffledeploy.deploy.runner.runner_places import require_takes_programs, takes_programs
from shuffledeploy.deploy.runner.running_runner import RunnerWishes, run_runner
from shuffledeploy.deploy.runtime.device_fit import fitting_device
from shuffledeploy.deploy.runtime.execution import LoadedNetwork, RunningNetwork, open_network
from shuffledeploy.deploy.runtime.latency import (
    count_instructions,
    measure_latency,
    refuse_times,
    require_real,
)
from shuffledeploy.deploy.runtime.layer_parity import check_layers, require_layers
from shuffledeploy.deploy.runtime.network_estimate import (
    Cycles,
    estimate_network,
    require_core_of,
)
from shuffledeploy.deploy.runtime.parity import Parity, check_parity
from shuffledeploy.deploy.runtime.pictures import Prediction, image_input, top_predictions
from shuffledeploy.deploy.runtime.standalone_network import open_standalone
from shuffledeploy.model.command_output import steps, write_json
from shuffledeploy.model.errors import Failure, UsageError

Tell = Callable[[str | None], None]


def run_bundle(options: argparse.Namespace) -> int:
    """Do what the command was asked for; return its exit status."""
    bundle = load_bundle(options.bundle)
    if options.standalone or options.runner or options.kernels or options.cold:
        # Says how to make it where it is not there.
        _ = bundle.standalone
    if options.layers:
        require_layers(bundle)
    described, result = (_by_runner if options.runner else _by_device)(bundle, options)
    clock = options.clock_ghz
    print_result(bundle, described, result, every_kernel=options.count, clock_ghz=clock)
    if options.json is not None:
        write_json(options.json, to_json(bundle.manifest, described, result, clock))
    if options.picture is not None and result.layers is not None:
        manifest = bundle.manifest
        draw_layers(
            options.picture, result.layers,
            f"{manifest.network} in {manifest.precision} on {described['name']},"
            " against PyTorch's float32",
        )  # fmt: skip
    result.parity.require(described["name"])
    return 0


def _by_runner(bundle: Bundle, options: argparse.Namespace) -> tuple[dict[str, Any], Result]:
    """Let one program do all there."""
    place = fitting_device(bundle.manifest, options.device)
    wants_times = options.latency or options.kernels or options.cold
    if wants_times and place.kind == "emulated":
        raise refuse_times(place.text)
    with steps(f"{bundle.manifest.network} in one program on {place.text}", 1) as tell:
        ran = run_runner(bundle, place, _wishes(options))
        tell(None)
    if wants_times and ran.is_emulated:
        raise refuse_times(place.text)
    result = Result(ran.parity, ran.latency, (), kernel_times=ran.kernels)
    return describe_place(place, ran, bundle.manifest), result


def _wishes(options: argparse.Namespace) -> RunnerWishes:
    return RunnerWishes(options.runs, options.core, options.cold, options.kernels)


def _by_device(bundle: Bundle, options: argparse.Namespace) -> tuple[dict[str, Any], Result]:
    """Load the network on a device and call it there."""
    image = image_input(options.input, bundle.manifest) if options.input else None
    total = 1 + bundle.manifest.cases + (image is not None) + options.layers
    opened = open_standalone if options.standalone else open_network
    with steps(f"opening {options.device or 'the device'}", total + 1) as tell:
        with opened(bundle, options.device, options.core) as network:
            _require_figure(network, options)
            result = _run(network, image, options, tell)
            if options.layers and isinstance(network, RunningNetwork):
                tell("comparing layer by layer")
                result = dataclasses.replace(result, layers=check_layers(network, bundle))
                tell(None)
            return describe(network), result


def _require_figure(network: LoadedNetwork, options: argparse.Namespace) -> None:
    """Refuse a figure that this kind of device cannot give, before any work."""
    if options.latency or options.kernels or options.cold:
        require_real(network.device)
    if options.kernels or options.cold or (options.standalone and options.latency):
        require_takes_programs(parse_device_name(network.device.name))
    if options.count and not network.device.can_count:
        raise UsageError(
            f"{network.device.name} cannot count instructions: an emulated board can, for a bundle"
            " built for ARM (--device emulated)"
        )
    if options.board is not None:
        require_core_of(find_board(options.board), network.device)


def _run(
    network: LoadedNetwork, image: Array | None, options: argparse.Namespace, tell: Tell
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
        top = top_predictions(network.run([image])[0], network.bundle.manifest.labels)
        tell(None)
    if network.device.can_count:
        tell("counting the instructions of one inference")
        figure = count_instructions(network)
        return Result(
            parity, figure, top, _estimate(network, options.board, tell) if options.count else None
        )
    if network.device.is_emulated:
        return Result(parity, None, top)
    tell("timing")
    return _timed(network, parity, top, options)


def _timed(
    network: LoadedNetwork, parity: Parity, top: tuple[Prediction, ...], options: argparse.Namespace
) -> Result:
    """Time by the runner where there is one to send, else by TVM's virtual machine."""
    place = parse_device_name(network.device.name)
    manifest = network.bundle.manifest
    has_runner = manifest.standalone is not None and compares(manifest)
    if options.standalone and not (has_runner and takes_programs(place)):
        return Result(parity, None, top)
    wanted = options.kernels or options.cold or place.kind in ("adb", "ssh")
    if isinstance(network, RunningNetwork) and not (has_runner and wanted):
        return Result(parity, measure_latency(network, runs=options.runs), top)
    ran = run_runner(network.bundle, place, _wishes(options))
    ran.parity.require(network.device.name)
    if options.latency and ran.is_emulated:
        raise refuse_times(place.text)
    told, latency = network.device.information, ran.latency
    if latency is not None:
        latency = dataclasses.replace(latency, core=told.cpu or latency.core, name=told.name)
    return Result(parity, latency, top, kernel_times=ran.kernels)


def _estimate(network: LoadedNetwork, board_name: str | None, tell: Tell) -> Cycles | str:
    """Estimate cycles; where nothing can, the count stands alone and says so."""
    if not isinstance(network, RunningNetwork):
        return "a standalone library keeps no names of kernels: run the bundle with --count"
    tell("estimating the cycles of one inference")
    try:
        return estimate_network(network, find_board(board_name) if board_name else None)
    except (UsageError, Failure) as error:
        return str(error)
