"""Compile networks that nobody here wrote and compare them with PyTorch: `make networks`.

Each is compiled in a process of its own, within a time limit, so that one that crashes or takes for
ever is a row of the table like the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import msgspec
from checked_program import OUTCOMES, CheckedProgram, check_program
from networks_table import networks_table
from odd_functions import FUNCTIONS
from odd_layers import LAYERS
from package_networks import package_networks

from shuffledeploy.model.command_output import require_writable, write_json
from shuffledeploy.model.errors import UsageError, command
from shuffledeploy.model.plain_console import plain_console

#: Seconds for each network and target: an emulated board computes the largest for minutes.
LIMIT_S = 900.0
Programs = dict[str, Any]


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``--help``."""
    options = _parse(argv)
    for path in (options.json, options.table):
        require_writable(path)
    programs = _programs()
    unknown = set(options.names) - set(programs)
    if unknown:
        raise UsageError(f"unknown networks: {', '.join(sorted(unknown))}")
    rows = _rows_of(options.json) if options.resume else []
    known = {(row.network, row.target) for row in rows}
    for name in options.names or programs:
        for target in options.targets:
            if (name, target) in known:
                continue
            row = check_program(name, programs[name], target, options.seconds)
            rows.append(row)
            print(_line(row), flush=True)
            if options.json:
                fields = [dataclasses.asdict(row) for row in rows]
                write_json(options.json, {"networks": fields})
    if options.table:
        options.table.write_text(networks_table(rows))
    counts = {kind: sum(row.outcome == kind for row in rows) for kind in OUTCOMES}
    plain_console().print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 1 if counts["wrong"] or counts["crashed"] else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="which (default: all)")
    parser.add_argument(
        "--targets", nargs="+", default=["host"], metavar="TARGET",
        help="targets by name (default: host)",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=LIMIT_S, help="time limit of each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows of the JSON file and add the others"
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="write a table in Markdown")
    options = parser.parse_args(argv)
    if options.resume and options.json is None:
        raise UsageError("--resume goes on from the rows of a file: add --json FILE")
    return options


def _programs() -> Programs:
    """List what makes each program: called, it gives an exported program."""
    odd = {f"odd_{name}": program.traced for name, program in {**LAYERS, **FUNCTIONS}.items()}
    return {**{network.name: network for network in package_networks()}, **odd}


def _rows_of(path: Path) -> list[CheckedProgram]:
    """Read the rows of an earlier run; none where there was none."""
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Rows).networks
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} holds no rows of networks: {error}") from error


class _Rows(msgspec.Struct):
    networks: list[CheckedProgram]


def _line(row: CheckedProgram) -> str:
    """Say in a line what came of a program."""
    detail = row.detail
    if row.outcome == "right":
        counts = f"{row.kernel_calls} kernel calls, {row.shuffle_kernels} shuffles"
        detail = f"{row.max_rel_error:.1e}, {counts}"
    seconds = sum(row.seconds.values())
    return f"{row.network:28} {row.target:12} {seconds:6.1f} s  {row.outcome:8} {detail}"


if __name__ == "__main__":
    sys.exit(main(None))
