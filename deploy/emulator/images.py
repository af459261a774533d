"""The code in an ELF file by address: what was executed, byte for byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

# e_shoff at 40; e_shentsize, e_shnum at 58: see the ELF-64 object file format.
_SECTION = struct.Struct("<IIQQQQIIQQ")
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
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    pieces = []
    for index in range(count):
        _, kind, flags, address, offset, length, *_ = _SECTION.unpack_from(
            data, table + index * size
        )
        if kind == _PROGBITS and flags & _EXECUTABLE and length:
            pieces.append((address, data[offset : offset + length]))
    return Image(tuple(pieces))
