"""From an exported program to a tuned library for an ARM core.

Importing this package checks that apache-tvm and apache-tvm-ffi are the pinned pair: with another
pair TVM imports and compiles, then dies of a segmentation fault while it tunes.
"""

from __future__ import annotations

from importlib import metadata

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


check_tvm_pair(_installed("apache-tvm"), _installed("apache-tvm-ffi"))
