"""The functions in an AArch64 library: what ``nm`` would print, without ``nm``."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import UsageError

_AARCH64 = 183
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", _AARCH64: "aarch64", 243: "riscv64"}
_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_STT_FUNC = 2
# e_machine at 18; e_shoff at 40; e_shentsize, e_shnum at 58: see the ELF-64 object file format.
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True, order=True)
class Function:
    """A function of a library: its offset from the load address, its size in bytes, its name."""

    address: int
    size: int
    name: str


def machine_of(header: bytes) -> str | None:
    """Return the architecture of an ELF file by its first 20 bytes, None if it is no such file."""
    if header[:4] != b"\x7fELF" or len(header) < 20:
        return None
    number = struct.unpack_from("<H", header, 18)[0]
    return _MACHINES.get(number, f"machine {number}")


def read_functions(path: Path) -> tuple[Function, ...]:
    """Return the functions of a library by address; those of ``.dynsym`` when it is stripped.

    Raises
    ------
    UsageError
        When the file is no AArch64 ELF file.
    """
    data = path.read_bytes()
    if machine_of(data) != _MACHINES[_AARCH64]:
        raise UsageError(f"{path} is no AArch64 library")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [_SECTION.unpack_from(data, table + index * size) for index in range(count)]
    for wanted in (_SHT_SYMTAB, _SHT_DYNSYM):
        for section in sections:
            if section[1] == wanted:
                return _functions(data, section, sections[section[6]])
    return ()


def function_at(functions: Sequence[Function], address: int) -> str:
    """Return the name of the function at an address, ``(other)`` for none (such as a PLT entry)."""
    place = bisect.bisect_right(functions, address, key=lambda function: function.address) - 1
    if place < 0:
        return "(other)"
    found = functions[place]
    return found.name if address < found.address + max(found.size, 1) else "(other)"


def _functions(
    data: bytes, symbols: tuple[int, ...], strings: tuple[int, ...]
) -> tuple[Function, ...]:
    """Read one symbol table and its strings."""
    found = []
    for name, info, _, section, value, size in _SYMBOL.iter_unpack(
        data[symbols[4] : symbols[4] + symbols[5]]
    ):
        if info & 0xF == _STT_FUNC and section:
            start = strings[4] + name
            found.append(Function(value, size, data[start : data.index(0, start)].decode()))
    return tuple(sorted(found))
