"""Machine code of kernels, kept in the cache from one compilation to the next.

An object is found by a hash of all that it depends on: the kernels as scheduled, the target, TVM's
version, and the source of this compiler.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import tvm

from shuffledeploy.compiler import TVM_VERSION
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.command_output import replaced
from shuffledeploy.model.errors import UsageError

#: Bytes that objects may take in the cache: some twenty thousand kernels. Beyond it those go that
#: were not used for the longest time, until a quarter is free.
MOST_BYTES = 512 << 20
_FOLDER = "kernels"
_HASH_BYTES = hashlib.sha256().digest_size


def kept_object(
    kernels: tvm.IRModule, target: CompileTarget, path: Path, make: Callable[[Path], None]
) -> bool:
    """Write an object: what an earlier compilation kept, or what is made now.

    Parameters
    ----------
    kernels : tvm.IRModule
        What the object is made of.
    target : CompileTarget
        What it is made for.
    path : Path
        The object to write.
    make : Callable
        Compiles the kernels to an object at a path.

    Returns
    -------
    bool
        Whether it was made now.
    """
    place = _place(kernels, target)
    found = None if place is None else _read(place)
    if found is not None:
        path.write_bytes(found)
        return False
    make(path)
    if place is not None:
        _keep(path.read_bytes(), place)
    return True


def forget_old_objects(most: int = MOST_BYTES) -> None:
    """Remove objects that were not used for long, where all take more than they may."""
    folder = _folder()
    if folder is None:
        return
    with contextlib.suppress(OSError):  # another compilation may remove the same
        found = sorted(
            (s.st_mtime, s.st_size, e.path) for e in os.scandir(folder) if (s := e.stat())
        )
        size = sum(bytes_ for _, bytes_, _ in found)
        if size <= most:
            return
        for _, bytes_, path in found:
            if size <= most * 3 // 4:
                return
            Path(path).unlink(missing_ok=True)
            size -= bytes_


def _folder() -> Path | None:
    """Give the folder of objects; nothing where this user has no cache of their own."""
    try:
        folder = cache_folder() / _FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
    except (UsageError, OSError):
        return None
    return folder


def _place(kernels: tvm.IRModule, target: CompileTarget) -> Path | None:
    folder = _folder()
    if folder is None:
        return None
    digest = hashlib.sha256(_compiler().encode())
    for part in (repr(target), tvm.ir.save_json(kernels)):
        digest.update(part.encode())
        digest.update(b"\0")
    return folder / digest.hexdigest()


@functools.cache
def _compiler() -> str:
    """Hash what makes code of kernels: TVM, and each source file of this package."""
    digest = hashlib.sha256(TVM_VERSION.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(place: Path) -> bytes | None:
    """Read an object, unless it is not there or not as it was written."""
    try:
        content = place.read_bytes()
        os.utime(place)
    except OSError:
        return None
    written, found = content[:_HASH_BYTES], content[_HASH_BYTES:]
    return found if hashlib.sha256(found).digest() == written else None


def _keep(content: bytes, place: Path) -> None:
    """Write an object; without room for it, it is not kept."""
    with contextlib.suppress(UsageError), replaced(place) as beside:
        beside.write_bytes(hashlib.sha256(content).digest() + content)
