"""64-bit little-endian ELF files: what they are for, their sections, and whether they are whole.

A library that is cut short is mapped without complaint, and reading behind its end is a SIGBUS.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.model.errors import UsageError

AARCH64 = "aarch64"
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: AARCH64, 243: "riscv64"}
# e_ident, e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize,
# e_phnum, e_shentsize, e_shnum, e_shstrndx: see the ELF-64 object file format.
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_IDENTITY = b"\x7fELF\x02\x01\x01"
_SHARED_OBJECT, _NO_BITS = 3, 8


@dataclass(frozen=True)
class Section:
    """A section of a file.

    Attributes
    ----------
    kind, flags, address : int
        As the format has them.
    offset, size : int
        Where it stands in the file.
    link : int
        Number of the section that it refers to.
    """

    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


def machine_of(header: bytes) -> str | None:
    """Return the architecture of an ELF file by its first 20 bytes, None if it is no such file."""
    if header[:4] != b"\x7fELF" or len(header) < 20:
        return None
    number = struct.unpack_from("<H", header, 18)[0]
    return _MACHINES.get(number, f"machine {number}")


def sections_of(data: bytes) -> list[Section]:
    """List the sections of a file.

    Raises
    ------
    ValueError
        If it is no such file, or is cut short.
    """
    header = _header(data)
    table, size, count = header[6], header[11], header[12]
    rows = _table(data, table, size, count, _SECTION)
    return [Section(row[1], row[2], row[3], row[4], row[5], row[6]) for row in rows]


def check_library(path: Path, architecture: str) -> None:
    """Refuse a shared library that is cut short, is none, or is for another machine.

    Raises
    ------
    UsageError
        Says which.
    """
    data = path.read_bytes()
    try:
        header = _header(data)
        if header[1] != _SHARED_OBJECT:
            raise ValueError("it is no shared library")
        if (found := machine_of(data)) != architecture:
            raise ValueError(f"it is for {found}, its manifest says {architecture}")
        for segment in _table(data, header[5], header[9], header[10], _SEGMENT):
            _require_within(data, segment[2], segment[5])
        for section in sections_of(data):
            if section.kind != _NO_BITS:
                _require_within(data, section.offset, section.size)
    except ValueError as error:
        raise UsageError(f"{path} cannot be loaded: {error}; make the bundle again") from error


def _header(data: bytes) -> tuple[int, ...]:
    if len(data) < _HEADER.size or not data.startswith(_IDENTITY):
        raise ValueError("it is no 64-bit ELF file")
    return _HEADER.unpack_from(data)


def _table(
    data: bytes, start: int, size: int, count: int, row: struct.Struct
) -> list[tuple[int, ...]]:
    if count and size != row.size:
        raise ValueError("it is no ELF file of this kind")
    _require_within(data, start, count * row.size)
    return [row.unpack_from(data, start + number * size) for number in range(count)]


def _require_within(data: bytes, start: int, size: int) -> None:
    if start + size > len(data):
        raise ValueError(f"it is cut short: {start + size:,} bytes are wanted, {len(data):,} there")
