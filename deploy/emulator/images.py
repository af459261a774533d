"""The code in an ELF file by address: what was executed, byte for byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

# e_phoff at 32; e_phentsize, e_phnum at 54: see the ELF-64 object file format.
_SEGMENT = struct.Struct("<IIQQQQQQ")
_PT_LOAD, _EXECUTABLE = 1, 1


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
    """Read the executable segments of a 64-bit little-endian ELF file."""
    data = path.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    pieces = []
    for index in range(count):
        kind, flags, offset, address, _, length, _, _ = _SEGMENT.unpack_from(
            data, table + index * size
        )
        if kind == _PT_LOAD and flags & _EXECUTABLE:
            pieces.append((address, data[offset : offset + length]))
    return Image(tuple(pieces))
