"""What a worker process holds of memory, and which libraries it has loaded; read from /proc."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

_SELF = Path("/proc/self")


def resident_kb() -> int:
    """Give the resident memory of this process now, in KiB."""
    return _status("VmRSS")


def peak_kb() -> int:
    """Give the largest resident memory since the last :func:`forget_peak`, in KiB."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak start again from what is resident now."""
    with contextlib.suppress(OSError):
        (_SELF / "clear_refs").write_text("5", encoding="ascii")


def loaded_libraries() -> dict[str, int]:
    """Give the shared libraries that this process has loaded from Python's packages.

    Returns
    -------
    dict of int
        Bytes on disk by path. The system's own (libc, libstdc++) are not among them.
    """
    found: dict[str, int] = {}
    for line in (_SELF / "maps").read_text(encoding="utf-8").splitlines():
        path = line.split(maxsplit=5)[-1]
        is_library = ".so" in Path(path).name and "-packages/" in path
        if is_library and path.startswith(sys.prefix) and path not in found:
            with contextlib.suppress(OSError):
                found[path] = Path(path).stat().st_size
    return found


def _status(field: str) -> int:
    for line in (_SELF / "status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0
