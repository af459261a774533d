"""The code in an ELF file by address: what was executed, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.compiler.bundle.elf import sections_of

_PROGBITS, _EXECUTABLE = 1, 4


@dataclass(frozen=True)
class Image:
    """Pieces of code, each at its address."""

    pieces: tuple[tuple[int, bytes], ...]

    def code(self, address: int, size: int) -> bytes:
        """Return the code at an address.

        Raises
        ------
        KeyError
            Where there is none.
        """
        for start, content in self.pieces:
            if start <= address and address + size <= start + len(content):
                return content[address - start : address - start + size]
        raise KeyError(hex(address))


def read_image(path: Path) -> Image:
    """Read the executable sections of a 64-bit little-endian ELF file."""
    data = path.read_bytes()
    return Image(tuple(
        (section.address, data[section.offset : section.offset + section.size])
        for section in sections_of(data)
        if section.kind == _PROGBITS and section.flags & _EXECUTABLE and section.size
    ))  # fmt: skip
