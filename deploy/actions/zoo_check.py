"""Every network of the zoo on every target: parity, with and without a runtime; shuffles."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.zoo import compile_network
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.parity import Parity, check_parity
from shuffledeploy.deploy.runtime.standalone_network import open_standalone
from shuffledeploy.model.command_output import steps, write_json
from shuffledeploy.model.plain_console import plain_console
from shuffledeploy.model.registry import names
from shuffledeploy.model.resolution import parse_resolution
from shuffledeploy.model.scratch import scratch_folder


def check_networks(options: argparse.Namespace) -> int:
    """Do what the command was asked for; return its exit status."""
    size = parse_resolution(options.resolution) if options.resolution else None
    jobs = [(model, target) for model in options.models or names() for target in options.targets]
    rows = []
    with steps("starting", len(jobs)) as tell:
        for model, target in jobs:
            tell(f"{model} for {target}")
            rows.append(check(model, target, size, options.precision))
            tell(None)
    print_rows(rows)
    if options.json:
        write_json(options.json, {"rows": [row.to_json() for row in rows]})
    return 0 if all(row.passed for row in rows) else 1


@dataclass(frozen=True)
class ZooRow:
    """What was found of one network on one target."""

    model: str
    target: str
    kernels: int
    shuffle_kernels: int
    records: int
    parity: Parity
    standalone: Parity

    @property
    def passed(self) -> bool:
        """Whether parity holds, with a runtime and without, and no shuffle is a kernel."""
        return self.parity.passed and self.standalone.passed and self.shuffle_kernels == 0

    def to_json(self) -> dict[str, Any]:
        """Give the row for a JSON file."""
        return {
            "model": self.model,
            "target": self.target,
            "kernels": self.kernels,
            "shuffle_kernels": self.shuffle_kernels,
            "kernels_with_record": self.records,
            "parity": self.parity.to_json(),
            "standalone_parity": self.standalone.to_json(),
            "passed": self.passed,
        }


def check(
    model: str, target: str, resolution: tuple[int, int] | None = None, precision: str = FLOAT
) -> ZooRow:
    """Compile one network with the committed records, run it and compare it with PyTorch."""
    with scratch_folder("zoo-") as folder:
        path = folder / "bundle"
        found = find_target(target).computing_in(precision)
        bundle = compile_network(model, found, path, resolution=resolution, standalone=True)
        with open_network(bundle) as network:
            parity = check_parity(network, bundle)
        with open_standalone(bundle) as alone:
            standalone = check_parity(alone, bundle)
    manifest = bundle.manifest
    records = manifest.kernels_with_record
    return ZooRow(
        model, manifest.target, manifest.kernel_calls, manifest.shuffle_kernels, records, parity,
        standalone,
    )  # fmt: skip


def print_rows(rows: Sequence[ZooRow]) -> None:
    """Print what was found as a table that 80 columns hold."""
    title = "Largest errors against PyTorch, in TVM's runtime and alone (without one)"
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for heading in ("network", "target"):
        table.add_column(heading, no_wrap=True)
    for heading in ("calls", "shuffles", "error", "alone", "parity"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.model, row.target, str(row.kernels), str(row.shuffle_kernels),
            f"{row.parity.max_abs_error:.1e}", f"{row.standalone.max_abs_error:.1e}",
            "holds" if row.parity.passed and row.standalone.passed else "FAILS",
        )  # fmt: skip
    plain_console().print(table)
