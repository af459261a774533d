"""Run a bundle on a device, prove its answers against PyTorch's, and say how fast it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shuffledeploy.compiler.bundle.folder import load_bundle
from shuffledeploy.deploy.devices.device_names import (
    CORE_HELP,
    DEVICE_HELP,
    device_of_board,
    parse_device_name,
    require_core,
)
from shuffledeploy.deploy.estimate.boards import BOARD_HELP, find_board
from shuffledeploy.deploy.runtime.defaults import RUNS
from shuffledeploy.model.command_output import require_writable
from shuffledeploy.model.errors import UsageError, command, program_name
from shuffledeploy.model.hidden_module import hidden_module

_DESCRIPTION = """\
Runs a bundle (made by compile/tune.py) on a device. In order: every file of the bundle is held
against its hash; architecture, features and TVM runtime of the device against what the library
needs; then the library goes there, and its answers are held against PyTorch's. Then one inference
is timed on a real device, or its instructions are counted on an emulated one.

  run.py build/shufflenet                        on this machine, or the emulated core it is for
  run.py build/shufflenet --input cat.jpg        the five likeliest classes of a picture
  run.py build/shufflenet --device adb           on the phone that is plugged in
  run.py build/shufflenet --runner --kernels     one static program, timed kernel by kernel
  run.py build/shufflenet --device rpc://10.0.0.7:9090 --json result.json
  run.py build/shufflenet --device emulated --count      the heaviest kernels, and what cycles
                                                         the core is estimated to take for them
  run.py build/shufflenet --count --board raspberry-pi-4     and how many ms that is there
  run.py build/shufflenet --layers --picture layers.png  each layer beside PyTorch's float32
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
    require_writable(options.write_runner)
    require_writable(options.picture)
    if options.runs < 1:
        raise UsageError(f"--runs takes at least 1, not {options.runs}")
    if options.device is not None:
        require_core(options.core, parse_device_name(options.device))
    if options.board is not None:
        options.device = device_of_board(find_board(options.board), options.device)
    bundle = load_bundle(options.bundle)
    if options.write_runner:
        from shuffledeploy.deploy.runner.bench_runner import write_runner

        for line in write_runner(bundle, options.write_runner):
            print(line)
        return 0
    with hidden_module("torch"):
        from shuffledeploy.deploy.actions.run_bundle import run_bundle

    return run_bundle(options)


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
    parser.add_argument("--core", metavar="CORE", help=CORE_HELP)
    parser.add_argument("--input", type=Path, metavar="IMAGE", help="a PNG or JPEG to classify")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument(
        "--runs", type=int, default=RUNS, help=f"runs to time on a real device (default {RUNS})"
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--standalone", action="store_true",
        help="run the network without a runtime (of tune.py --standalone) in place of the bundle's",
    )  # fmt: skip
    way.add_argument(
        "--runner", action="store_true",
        help="send one static program with that network inside, and run it there",
    )  # fmt: skip
    way.add_argument(
        "--write-runner", type=Path, metavar="FILE",
        help="write that program, and FILE.reference beside it, to be run by hand",
    )  # fmt: skip
    parser.add_argument(
        "--kernels", action="store_true", help="with a time by the runner, also each kernel's"
    )
    parser.add_argument(
        "--cold", action="store_true",
        help="with a time by the runner: empty the caches before each inference",
    )  # fmt: skip
    parser.add_argument(
        "--layers", action="store_true",
        help="also hold each layer's tensor against PyTorch's: signal to noise, the worst layers",
    )  # fmt: skip
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="with --layers: draw that, as .png or .svg"
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
    parser.add_argument("--board", metavar="BOARD", help=f"with --count: {BOARD_HELP}")
    options = parser.parse_args(argv)
    if options.clock_ghz is not None and not (options.count and 0 < options.clock_ghz < 100):
        raise UsageError("--clock-ghz takes a core's clock, such as 1.5, and goes with --count")
    if options.board is not None and (not options.count or options.clock_ghz is not None):
        raise UsageError("--board goes with --count, and has a clock: leave out --clock-ghz")
    if options.board is not None and options.standalone:
        raise UsageError("--board estimates what a bundle takes: leave out --standalone")
    if options.layers and (options.standalone or options.runner or options.write_runner):
        raise UsageError("--layers asks the bundle: leave out --standalone and the runner")
    if options.picture is not None and not options.layers:
        raise UsageError("--picture draws the layers of --layers")
    if options.picture is not None and options.picture.suffix not in (".png", ".svg"):
        raise UsageError(f"--picture takes a file .png or .svg, not {options.picture.name}")
    if (options.runner or options.write_runner) and (options.input or options.count):
        raise UsageError("the runner compares and times: leave out --input and --count")
    return options


if __name__ == "__main__":
    sys.exit(main(None))
