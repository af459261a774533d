"""Runs every kernel of a pickled module between two pages that may not be touched.

A read or write outside a buffer ends the process, so the test starts it as one:
``python guarded_memory.py MODULE.json TARGET.json``.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi

PAGE = mmap.PAGESIZE
PROT_NONE = 0
ALIGNMENT = 64


def guarded(shape: tuple[int, ...], dtype: str, at_end: bool) -> np.ndarray:
    """Make an array that ends (or starts) at a page that may not be touched.

    It ends up to 60 bytes before: kernels take their buffers to be aligned as TVM's are.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    pages = -(-size // PAGE) * PAGE
    memory = mmap.mmap(-1, pages + 2 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for place in (address, address + PAGE + pages):
        if protect(ctypes.c_void_p(place), ctypes.c_size_t(PAGE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE + ((pages - size) // ALIGNMENT * ALIGNMENT if at_end else 0)
    return np.frombuffer(memory, dtype, size // np.dtype(dtype).itemsize, offset).reshape(shape)


def main() -> None:
    """Run the kernels; see the top of the file."""
    module = tvm.ir.load_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    target = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    names = [variable.name_hint for variable in module.functions]
    library = tvm.compile(module, target).mod
    for name in names:
        parameters = module[name].params
        for at_end in (True, False):
            arrays = [
                guarded(tuple(int(e) for e in p.shape), str(p.dtype), at_end) for p in parameters
            ]
            print(name, "read to its end" if at_end else "read from its start", flush=True)
            library[name](*(tvm_ffi.from_dlpack(a, require_alignment=4) for a in arrays))


if __name__ == "__main__":
    main()
