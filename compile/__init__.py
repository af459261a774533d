"""From an exported program to a tuned library for an ARM core.

Importing this package checks that apache-tvm and apache-tvm-ffi are the pinned pair: with another
pair TVM imports and compiles, then dies of a segmentation fault while it tunes.
"""

from __future__ import annotations

import ctypes
from importlib import metadata
from pathlib import Path

TVM_VERSION = "0.27.0.post1"
TVM_FFI_VERSIONS = ("0.1.14.post0", "0.1.14.post1")


def check_tvm_pair(tvm_version: str | None, ffi_version: str | None) -> None:
    """Stop with a plain message where the installed pair is not one that works.

    Parameters
    ----------
    tvm_version, ffi_version : str or None
        Installed versions of apache-tvm and apache-tvm-ffi; ``None`` where one is missing.

    Raises
    ------
    ImportError
        Names what is installed and the command that puts it right.
    """
    if tvm_version == TVM_VERSION and ffi_version in TVM_FFI_VERSIONS:
        return
    raise ImportError(
        f"apache-tvm {tvm_version or 'is missing'} with apache-tvm-ffi {ffi_version or 'missing'} "
        f"is not a pair that works here (another pair crashes while tuning). Install it with: "
        f"pip install apache-tvm=={TVM_VERSION} apache-tvm-ffi=={TVM_FFI_VERSIONS[-1]}"
    )


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def know_few_symbols() -> None:
    """Let TVM read names of functions for its stack traces from what is loaded at this moment.

    It reads them once, when the first error is raised, and `import tvm` raises and catches a
    hundred of its own: with PyTorch loaded that takes two thirds of a second. Of libraries that are
    loaded later, traces name the line that raised, not its callers.
    """
    folder = metadata.distribution("apache-tvm-ffi").locate_file("tvm_ffi")
    for library in Path(str(folder)).glob("lib/libtvm_ffi.so"):
        trace = getattr(ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL), "TVMFFIBacktrace", None)
        if trace is not None:
            trace(b"", 0, b"", 0)


check_tvm_pair(_installed("apache-tvm"), _installed("apache-tvm-ffi"))
know_few_symbols()
