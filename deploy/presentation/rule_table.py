"""What is this project's in a network and what TVM's own rules made, at 80 columns."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.bundle.manifest_entries import KernelEntry
from shuffledeploy.model.plain_console import plain_console

_MOST_KERNELS = 8


@dataclass(frozen=True)
class RuleShares:
    """What kernels by TVM's own rules take of an inference.

    Attributes
    ----------
    shares : dict
        By kernel, the largest first.
    of : str
        What they are shares of, with the kind of the figure.
    """

    shares: dict[str, float]
    of: str

    @property
    def total(self) -> float:
        """Of all of them."""
        return sum(self.shares.values())


def print_rules(manifest: Manifest, shares: RuleShares | None) -> None:
    """Print which kernels are not this project's, what they take and where they came from."""
    kernels = manifest.kernels_by_rules
    calls = sum(kernel.calls for kernel in kernels)
    if not kernels:
        print("every kernel is this project's own")
        return
    takes = f": {shares.total:.1%} of the {shares.of}" if shares else ""
    print(f"{calls} of {manifest.kernel_calls} kernel calls are by TVM's own rules{takes}")
    plain_console().print(_table(kernels, shares))


def _table(kernels: tuple[KernelEntry, ...], shares: RuleShares | None) -> Table:
    by_name = {kernel.name: kernel for kernel in kernels}
    order = list(shares.shares) if shares else sorted(by_name, key=lambda n: -by_name[n].calls)
    table = Table(box=None, pad_edge=False)
    table.add_column("by TVM's rules", no_wrap=True)
    for heading in ("calls", "share"):
        table.add_column(heading, justify="right")
    table.add_column("from the operators")
    for name in order[:_MOST_KERNELS]:
        share = f"{shares.shares[name]:.1%}" if shares else ""
        kernel = by_name[name]
        table.add_row(name[:32], str(kernel.calls), share, ", ".join(kernel.operators))
    rest = order[_MOST_KERNELS:]
    if rest:
        share = f"{sum(shares.shares[name] for name in rest):.1%}" if shares else ""
        calls = sum(by_name[name].calls for name in rest)
        operators = sorted({o for name in rest for o in by_name[name].operators})
        table.add_row(f"{len(rest)} more", str(calls), share, ", ".join(operators))
    return table
