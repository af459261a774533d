"""The command ``shuffledeploy``: one name for all commands, each with its own help."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata

from shuffledeploy.model.errors import USAGE_STATUS, command

#: Command, the module whose ``main`` it calls, what it does.
COMMANDS = {
    "tune": ("compiler.tune", "compile and tune a network, prove it right, bundle it"),
    "run": ("deploy.run", "run a bundle on a device: parity, then latency or a count"),
    "compare": ("deploy.compare", "AlexNet, ShuffleNet, MobileNet beside the paper's table"),
    "precisions": ("deploy.precisions", "one line a precision: size, speed, accuracy"),
    "report": ("deploy.report", "one page about networks, to send around"),
    "bench": ("deploy.bench", "beside ONNX Runtime, OpenVINO, ncnn and MNN, here"),
    "peers": ("deploy.peers", "beside ncnn, ONNX Runtime and MNN, on an emulated core"),
    "logs": ("compiler.logs", "show, check, prune and merge tuning records"),
    "device": ("deploy.device", "emulated boards and phones; phones that are plugged in"),
    "zoo": ("deploy.check_zoo", "every network, every target: parity and shuffle kernels"),
    "fashion": ("deploy.fashion_accuracy", "accuracy on Fashion-MNIST beside PyTorch's"),
    "complexity": ("model.complexity_table", "multiply-adds and parameters of a network"),
    "validate-score": ("compiler.validate_score", "does the estimate rank schedules as time does?"),
    "validate-silicon": ("compiler.validate_silicon", "is the estimate right, by published times?"),
}


@command
def main(argv: list[str] | None = None) -> int:
    """Run a command by its name; return its exit status."""
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("--version", "-V"):
        print(f"shuffledeploy {metadata.version('shuffledeploy')}")
        return 0
    if name in ("--help", "-h", "help"):
        print(_help())
        return 0
    if name not in COMMANDS:
        print(
            f"error: there is no command {name!r}; there are {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return USAGE_STATUS
    sys.argv[0] = f"shuffledeploy {name}"
    module = importlib.import_module(f"shuffledeploy.{COMMANDS[name][0]}")
    return int(module.main(arguments))


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items())
    return (
        "usage: shuffledeploy COMMAND ...\n\n"
        "A PyTorch network, compiled for an ARM core and proven on a device.\n\n"
        f"commands (COMMAND --help tells more):\n{rows}\n\n"
        "first steps:\n"
        "  shuffledeploy tune --target host     for this machine: no board is needed\n"
        "  shuffledeploy device build           an emulated Cortex-A board, once\n"
        "  shuffledeploy tune --target arm      for a Cortex-A72, on an emulated one"
    )
