"""Compile networks that nobody here wrote and compare them with PyTorch: `make networks`.

Each is compiled in a process of its own, within a time limit, so that one that crashes or takes for
ever is a row of the table like the others.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from odd_functions import FUNCTIONS
from odd_layers import LAYERS
from package_networks import package_networks
from telling_weights import telling

import shuffledeploy
from shuffledeploy.model.command_output import require_writable, write_json
from shuffledeploy.model.errors import Failure, UsageError, command
from shuffledeploy.model.plain_console import plain_console

LIMIT = 300.0
Programs = dict[str, Any]


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    require_writable(options.json)
    programs = _programs()
    unknown = set(options.names) - set(programs)
    if unknown:
        raise UsageError(f"unknown networks: {', '.join(sorted(unknown))}")
    rows = []
    for name in options.names or programs:
        row = _checked(name, programs[name], options)
        rows.append(row)
        print(f"{name:28} {row['seconds']:6.1f} s  {row['outcome']:8} {row['detail']}", flush=True)
    counts = {kind: sum(row["outcome"] == kind for row in rows)
              for kind in ("right", "refused", "wrong", "crashed", "missing")}  # fmt: skip
    plain_console().print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    if options.json:
        write_json(options.json, {"target": options.target, "networks": rows, "counts": counts})
    return 1 if counts["wrong"] or counts["crashed"] else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="which (default: all)")
    parser.add_argument("--target", default="host", help="target by name (default: host)")
    parser.add_argument("--seconds", type=float, default=LIMIT, help="time limit of each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    return parser.parse_args(argv)


def _programs() -> Programs:
    """List what makes each program: called, it gives a module and its inputs."""
    odd = {f"odd_{name}": program.traced for name, program in {**LAYERS, **FUNCTIONS}.items()}
    return {**{network.name: network for network in package_networks()}, **odd}


def _checked(name: str, program: Any, options: argparse.Namespace) -> dict[str, Any]:
    if not getattr(program, "is_installed", True):
        return _row(name, "missing", f"{program.package} is not installed", 0.0)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    began = time.monotonic()
    process = context.Process(target=_compare, args=(program, options.target, there))
    process.start()
    there.close()
    try:
        outcome, detail = here.recv() if here.poll(options.seconds) else (
            "crashed", f"not done after {options.seconds:.0f} s")  # fmt: skip
    except EOFError:
        outcome, detail = "crashed", "the process died"
    process.kill()
    process.join()
    return _row(name, outcome, detail, time.monotonic() - began)


def _row(name: str, outcome: str, detail: str, seconds: float) -> dict[str, Any]:
    return {"network": name, "outcome": outcome, "detail": detail, "seconds": seconds}


def _compare(program: Any, target: str, answer: Connection) -> None:
    """Compile and compare one program; a process of its own runs this."""
    try:
        answer.send(_compared(program, target))
    except (UsageError, Failure) as error:
        answer.send(("refused", str(error)))
    except BaseException:
        answer.send(("crashed", traceback.format_exc().strip().splitlines()[-1]))


def _compared(program: Any, target: str) -> tuple[str, str]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if callable(program):
        exported = program()
    else:
        picture = torch.zeros(1, 3, program.size, program.size)
        pictures = picture.expand(4, -1, -1, -1)
        exported = torch.export.export(telling(program.make(), pictures), (picture,))
    with tempfile.TemporaryDirectory() as folder:
        bundle = shuffledeploy.compile(exported, target=target, output=Path(folder) / "bundle")
        parity = shuffledeploy.check_parity(bundle)
        calls, shuffles = bundle.manifest.kernel_calls, bundle.manifest.shuffle_kernels
    detail = f"{parity.max_rel_error:.1e}, {calls} kernel calls, {shuffles} shuffles"
    return ("right", detail) if parity.passed else ("wrong", parity.verdict)


if __name__ == "__main__":
    sys.exit(main(None))
