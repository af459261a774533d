"""What a count over RPC gives: instructions in total, by symbol, by kernel."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from deploy.emulator.blocks import Block, instructions_in, read_blocks
from deploy.emulator.elf_symbols import function_at, read_functions

# TVM splits a kernel: its entry, which checks arguments, and local functions that compute. It may
# write into a larger tensor or over its residual, or compute some rows.
_ENTRY = re.compile(r"^__tvm_ffi_")
_PART = re.compile(r"(_into_\w+?)?(_in_place)?(_compute_(\.\d+)?|_rows)?$")


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
    def kernels(self) -> dict[str, int]:
        """Return the counts by kernel: an entry and its computing parts together."""
        sums: Counter[str] = Counter()
        for name, instructions in self.symbols.items():
            sums[kernel_of(name)] += instructions
        return dict(sums.most_common())


def kernel_of(function: str) -> str:
    """Name the kernel that a function of a library belongs to."""
    return _PART.sub("", _ENTRY.sub("", function))


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
    return InstructionCounts(instructions_in(blocks), dict(sums.most_common()), blocks)
