"""The functions in an AArch64 library: what ``nm`` would print, without ``nm``."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.compiler.bundle.elf import AARCH64, Section, machine_of, sections_of
from shuffledeploy.model.errors import UsageError

_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_STT_FUNC = 2
_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True, order=True)
class Function:
    """A function of a library: its offset from the load address, its size in bytes, its name."""

    address: int
    size: int
    name: str


def read_functions(path: Path) -> tuple[Function, ...]:
    """Return the functions of a library by address; those of ``.dynsym`` when it is stripped.

    Raises
    ------
    UsageError
        When the file is no AArch64 ELF file.
    """
    data = path.read_bytes()
    if machine_of(data) != AARCH64:
        raise UsageError(f"{path} is no AArch64 library")
    try:
        sections = sections_of(data)
        for wanted in (_SHT_SYMTAB, _SHT_DYNSYM):
            for section in sections:
                if section.kind == wanted:
                    return _functions(data, section, sections[section.link])
    except (ValueError, IndexError, struct.error) as error:
        raise UsageError(f"{path} is damaged: {error}") from error
    return ()


def function_at(functions: Sequence[Function], address: int) -> str:
    """Return the name of the function at an address, ``(other)`` for none (such as a PLT entry)."""
    place = bisect.bisect_right(functions, address, key=lambda function: function.address) - 1
    if place < 0:
        return "(other)"
    found = functions[place]
    return found.name if address < found.address + max(found.size, 1) else "(other)"


def _functions(data: bytes, symbols: Section, strings: Section) -> tuple[Function, ...]:
    """Read one symbol table and its strings."""
    found = []
    for name, info, _, section, value, size in _SYMBOL.iter_unpack(
        data[symbols.offset : symbols.offset + symbols.size]
    ):
        if info & 0xF == _STT_FUNC and section:
            start = strings.offset + name
            found.append(Function(value, size, data[start : data.index(0, start)].decode()))
    return tuple(sorted(found))
