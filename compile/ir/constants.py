"""The constants of a library: one after the other, read where the library is mapped."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.ir import StringImm

from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import ALIGNMENT, aligned
from shuffledeploy.compiler.ir.tvm_edges import IMPORT_LLVM

#: Of a module: its constants, one after the other, each from the next aligned byte.
CONSTANTS = "shuffledeploy.constants"
_SYMBOL = "shuffledeploy_constants"
_PLACE = f"{_SYMBOL}_at"

# Linked into each kernel and inlined there: the address of a byte of the constants.
_ADDRESS = f"""
@{_SYMBOL} = external hidden constant i8, align {ALIGNMENT}
define ptr @{_PLACE}(i64 %byte) {{
  %place = getelementptr i8, ptr @{_SYMBOL}, i64 %byte
  ret ptr %place
}}
"""


class Constants:
    """The constants of a library in order; equal ones are kept once."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self._size = 0
        self._starts: dict[bytes, int] = {}

    @staticmethod
    def of(module: tvm.IRModule) -> Constants:
        """Collect those that a module has in its attribute `CONSTANTS`, maybe none."""
        constants = Constants()
        for tensor in (module.attrs or {}).get(CONSTANTS, ()):
            constants.start_of(tensor)
        return constants

    def start_of(self, tensor: Any) -> int:
        """Add a tensor unless it is there; give the byte at which it starts."""
        content = _bytes_of(tensor)
        key = hashlib.blake2b(content.data).digest()
        if key not in self._starts:
            self._starts[key] = self._size
            self.tensors.append(tensor)
            self._size += aligned(content.size)
        return self._starts[key]

    def write(self, path: Path) -> None:
        """Write them to a file as they stand in a library."""
        with path.open("wb") as stream:
            for tensor in self.tensors:
                content = _bytes_of(tensor)
                stream.write(content.data)
                stream.write(bytes(aligned(content.size) - content.size))


def _bytes_of(tensor: Any) -> Array:
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)


def constant_at(start: Any) -> Any:
    """Write the address of a byte of the constants; `reading_constants` makes it known."""
    return tirx.call_extern("handle", _PLACE, start)


def reading_constants(body: Any) -> Any:
    """Let a function's statements use `constant_at`."""
    return with_llvm(body, _ADDRESS)


def with_llvm(body: Any, code: str) -> Any:
    """Let a function's statements call functions that are written as LLVM's code."""
    return tirx.AttrStmt(StringImm(_SYMBOL), IMPORT_LLVM, StringImm(code), body)


def constants_object(module: tvm.IRModule, architecture: str, folder: Path) -> list[str]:
    """Make an object file of a module's constants, for the linker.

    Returns
    -------
    list of str
        The object's path; nothing where there are no constants.
    """
    constants = Constants.of(module)
    if not constants.tensors:
        return []
    values, source, made = (folder / f"constants.{kind}" for kind in ("bin", "ll", "o"))
    constants.write(values)
    visible = (f".hidden {_SYMBOL}", f".globl {_SYMBOL}")
    lines = f'target triple = "{architecture}-linux-gnu"\n' + constants_assembly(values, visible)
    source.write_text(lines, encoding="ascii")
    tvm.runtime.load_module(str(source)).write_to_file(str(made))
    values.unlink()
    return [str(made)]


def constants_assembly(
    values: Path, visible: tuple[str, ...] = (), *, is_mach_o: bool = False
) -> str:
    """Write LLVM's code that takes the constants from a file when it is compiled.

    Parameters
    ----------
    values : Path
        What `Constants.write` wrote.
    visible : tuple of str
        What makes their symbol known to other objects; without it, only this one knows it.
    is_mach_o : bool
        Whether the object is one of Mach-O, where names of C begin with ``_``; else of ELF.
    """
    section = "__TEXT,__const" if is_mach_o else '.rodata.constants,"a",%progbits'
    assembly = (
        f".section {section}", f".balign {ALIGNMENT}", *visible,
        f"{'_' * is_mach_o}{_SYMBOL}:", f".incbin {_assembler_string(values)}", ".text",
    )  # fmt: skip
    return "".join(f'module asm "{_llvm_string(line)}"\n' for line in assembly)


def _assembler_string(path: Path) -> str:
    return '"' + str(path).replace("\\", r"\\").replace('"', r"\"") + '"'


def _llvm_string(text: str) -> str:
    return "".join(f"\\{byte:02x}" for byte in os.fsencode(text))
