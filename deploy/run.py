"""Run a bundle on a device, prove its answers against PyTorch's, and say how fast it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from shuffledeploy.compiler.bundle.folder import load_bundle
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.deploy.devices.device_names import DEVICE_HELP, parse_device_name
from shuffledeploy.deploy.report.run_report import Result, describe, print_result, to_json
from shuffledeploy.deploy.runtime.execution import RunningNetwork, open_network
from shuffledeploy.deploy.runtime.latency import (
    RUNS,
    Instructions,
    Latency,
    count_instructions,
    measure_latency,
    require_real,
)
from shuffledeploy.deploy.runtime.network_estimate import Cycles, estimate_network
from shuffledeploy.deploy.runtime.parity import check_parity
from shuffledeploy.deploy.runtime.pictures import Prediction, image_input, top_predictions
from shuffledeploy.model.command_output import require_writable, steps, write_json
from shuffledeploy.model.errors import Failure, UsageError, command, program_name

_DESCRIPTION = """\
Runs a bundle (made by compile/tune.py) on a device. In order: every file of the bundle is held
against its hash; architecture, features and TVM runtime of the device against what the library
needs; then the library goes there, and its answers are held against PyTorch's. Then one inference
is timed on a real device, or its instructions are counted on an emulated one.

  run.py build/shufflenet                        on this machine, or the emulated core it is for
  run.py build/shufflenet --input cat.jpg        the five likeliest classes of a picture
  run.py build/shufflenet --device rpc://10.0.0.7:9090 --json result.json
  run.py build/shufflenet --device emulated --count      the heaviest kernels, and what cycles
                                                         the core is estimated to take for them
"""
_EPILOG = """\
exit status: 0 when parity holds; 1 when it does not (the first wrong kernel is named) or the
device fails; 2 when the bundle, the image or the device's name is wrong. An option --device of
TVM's RPC kind gives that machine full control over what it is sent: keep it off untrusted networks.
"""


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
    clock = options.clock_ghz
    print_result(bundle, described, result, every_kernel=options.count, clock_ghz=clock)
    if options.json is not None:
        write_json(options.json, to_json(bundle.manifest, described, result, clock))
    result.parity.require(described["name"])
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("run.py"), description=_DESCRIPTION, epilog=_EPILOG,
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
        "--count",
        action="store_true",
        help="count instructions and estimate cycles by kernel (emulated devices)",
    )
    figure.add_argument("--latency", action="store_true", help="insist on a time (real devices)")
    parser.add_argument(
        "--clock-ghz", type=float, metavar="GHZ",
        help="with --count, also the milliseconds of the estimated cycles at such a clock",
    )  # fmt: skip
    options = parser.parse_args(argv)
    if options.clock_ghz is not None and not (options.count and 0 < options.clock_ghz < 100):
        raise UsageError("--clock-ghz takes a core's clock, such as 1.5, and goes with --count")
    return options


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


if __name__ == "__main__":
    sys.exit(main(None))
