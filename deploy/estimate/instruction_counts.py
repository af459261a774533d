"""What a count over RPC gives: instructions in total, by symbol, by kernel."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.ir.tvm_edges import function_of
from shuffledeploy.deploy.estimate.elf_symbols import function_at, read_functions
from shuffledeploy.deploy.estimate.executed_blocks import (
    Block,
    MemoryEvents,
    instructions_in,
    memory_events_of,
    read_blocks,
)


@dataclass(frozen=True)
class InstructionCounts:
    """Instructions that one call executed. The kind of these figures is: counted.

    Attributes
    ----------
    total : int
        All of them.
    symbols : dict[str, int]
        By function of the library, most first; empty for a whole process.
    blocks : tuple[Block, ...]
        The translation blocks; addresses are offsets in the library.
    """

    total: int
    symbols: dict[str, int]
    blocks: tuple[Block, ...] = field(repr=False)

    @property
    def memory(self) -> MemoryEvents | None:
        """What loads and stores waited for: simulated, None where no caches were."""
        return memory_events_of(self.blocks)

    def by_kernel(self, manifest: Manifest) -> dict[str, int]:
        """Return the counts by kernel: an entry and its computing parts together."""
        sums: Counter[str] = Counter()
        for name, instructions in self.symbols.items():
            sums[kernel_behind(name, manifest)] += instructions
        return dict(sums.most_common())


def kernel_behind(symbol: str, manifest: Manifest) -> str:
    """Name the kernel whose work a function of a bundle's library does."""
    function = function_of(symbol)
    return manifest.symbols.get(function, function)


def fold(report: str, base: int, library: Path | None) -> InstructionCounts:
    """Read the plugin's report of a library loaded at an address, or of a whole process.

    Raises
    ------
    UsageError
        When the library is no AArch64 file.
    ValueError
        When the report was cut off.
    """
    blocks = tuple(
        replace(block, address=block.address - base) for block in read_blocks(report)
    )  # fmt: skip
    sums: Counter[str] = Counter()
    if library:
        functions = read_functions(library)
        for block in blocks:
            name = function_at(functions, block.address)
            sums[name] += block.instructions * block.executions
    total, symbols = instructions_in(blocks), dict(sums.most_common())
    return InstructionCounts(total, symbols, blocks)
